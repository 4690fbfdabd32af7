"use strict";
// Shows the cards that lie in the page as data. Texts from outside become text nodes, never markup.
(() => {
  const { cards, twins, words, run } = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const PAGE = { pairs: 60, grid: 120, sheet: 30 };
  const MOST_COLUMNS = 24;
  const CELL = 4;
  const STATES = ["done", "fetching", "running", "submitting", "pending", "failed", "uncertain", "cancelled"];
  const EXPLAINED = {
    pending: "waits to be sent", submitting: "is being sent", running: "at work at the server", fetching: "being fetched",
    failed: "failed", uncertain: "may have been billed", cancelled: "cancelled", done: "no file",
  };

  for (const group of twins) {
    for (const [at, place] of group.entries()) {
      const others = group.slice(0, 4).filter((one) => one !== place).slice(0, 3);
      const rest = group.length - 1 - others.length;
      const named = others.map((one) => cards[one].name).join(", ");
      cards[place].twin = group[(at + 1) % group.length];
      cards[place].flags = { ...cards[place].flags, twin: `the same picture as ${named}${rest ? ` and ${rest} more` : ""}` };
      
    }
  }

  // What the cards can be told apart by.
  const order = new Map();
  const nameOf = (card, field) => (card.values[field] === undefined ? "" : words[card.values[field]]);
  cards.forEach((card, place) => {
    card.place = place;
    for (const [field, value] of Object.entries(card.values)) {
      if (!order.has(field)) order.set(field, new Map());
      const known = order.get(field);
      known.set(value, (known.get(value) ?? 0) + 1);
    }
  });
  const size = (field) => order.get(field)?.size ?? 0;
  const length = (field) => [...order.get(field).keys()].reduce((sum, value) => sum + words[value].length, 0) / size(field);

  // Of variables that say the same in other words (a path and its stem), the shorter is offered.
  function sayTheSame(one, other) {
    if (size(one) !== size(other)) return false;
    const pairs = new Map();
    for (const { values } of cards) {
      if (!pairs.has(values[one])) pairs.set(values[one], values[other]);
      else if (pairs.get(values[one]) !== values[other]) return false;
    }
    return new Set(pairs.values()).size === pairs.size;
  }
  const fields = [];
  for (const field of [...order.keys()].filter((name) => size(name) > 1)) {
    const same = fields.findIndex((known) => sayTheSame(known, field));
    if (same < 0) fields.push(field);
    else if (length(field) < length(fields[same])) fields[same] = field;
  }

  // Rows and columns at first: the two variables whose table has the fewest empty cells, and the fewest cards in one.
  function usualAxes() {
    let best = { rows: fields[0], columns: fields[0], fill: 0 };
    const others = fields.filter((field) => field !== "sample");  // samples of the same stand in one cell, unless nothing else differs
    const offered = others.length > 1 ? others : fields;
    for (const columns of offered.filter((field) => size(field) <= MOST_COLUMNS)) {
      for (const rows of offered.filter((field) => field !== columns && size(field) >= size(columns))) {
        const filled = new Set(cards.map(({ values }) => `${values[rows]} ${values[columns]}`)).size;
        const fill = (filled / (size(rows) * size(columns))) * (filled / cards.length);
        if (fill > best.fill + 1e-9 || (fill > best.fill - 1e-9 && size(rows) > size(best.rows))) best = { rows, columns, fill };
      }
    }
    return best;
  }

  // What is chosen, kept in the address so that a view can be sent to someone.
  const axes = usualAxes();
  const anyBefore = cards.some((card) => card.before.some((one) => one.thumb));
  const SIZE = 4;  // of 9
  const chosen = { view: anyBefore ? "pairs" : "grid", rows: axes.rows, columns: axes.columns, size: SIZE, page: 0, search: "", state: "", flag: "", where: {} };

  function readAddress() {
    const said = new URLSearchParams(location.hash.slice(1));
    if (said.get("view") in PAGE) chosen.view = said.get("view");
    for (const key of ["rows", "columns"]) if (fields.includes(said.get(key))) chosen[key] = said.get(key);
    for (const key of ["search", "state", "flag"]) chosen[key] = said.get(key) ?? "";
    chosen.size = Math.min(9, Math.max(1, Number.parseInt(said.get("size") ?? SIZE, 10) || SIZE));
    chosen.page = Math.max(0, Number.parseInt(said.get("page") ?? "1", 10) - 1 || 0);
    chosen.where = {};
    for (const [key, value] of said) if (key.startsWith("v.") && fields.includes(key.slice(2))) chosen.where[key.slice(2)] = value;
  }

  // Back closes a picture, and goes to the page before.
  function writeAddress(open, how = "replaceState") {
    const said = new URLSearchParams({ view: chosen.view });
    if (chosen.view === "sheet") { said.set("rows", chosen.rows); said.set("columns", chosen.columns); }
    for (const key of ["search", "state", "flag"]) if (chosen[key]) said.set(key, chosen[key]);
    for (const [field, value] of Object.entries(chosen.where)) said.set(`v.${field}`, value);
    if (chosen.size !== SIZE) said.set("size", String(chosen.size));
    if (chosen.page) said.set("page", String(chosen.page + 1));
    if (open) said.set("open", open);
    history[how](open ? { open } : null, "", `#${said}`);
  }

  const hay = (card) => (card.hay ??= [card.name, card.id, card.request ?? "", card.kind ?? "", card.message ?? "", words[card.prompt],
    ...Object.values(card.values).map((value) => words[value])].join("\n").toLowerCase());

  function matches(card) {
    if (chosen.state && card.state !== chosen.state) return false;
    if (chosen.flag && !(chosen.flag in (card.flags ?? {}))) return false;
    for (const [field, value] of Object.entries(chosen.where)) if (nameOf(card, field) !== value) return false;
    return !chosen.search || chosen.search.toLowerCase().split(/\s+/).every((word) => hay(card).includes(word));
  }

  // Building blocks.
  function make(tag, facts = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(facts)) {
      if (value === undefined || value === null || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "class") element.className = value;
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }
  const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
  const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
  const alt = (card) => short(`${card.name}: ${words[card.prompt]}`, 160);
  const before = (card) => card.before.find((one) => one.thumb);
  const isVideo = (card) => /^video\//.test(card.mime ?? "");
  const kindOf = cards.some((card) => card.src) && cards.every((card) => !card.src || isVideo(card)) ? "video" : "picture";
  const ratio = (card) => {
    const [width, height] = card.width ? [card.width, card.height] : isVideo(card) ? [4, 3] : before(card)?.width ? [before(card).width, before(card).height] : [4, 3];
    return Math.min(2.4, Math.max(0.45, width / height));
  };
  const picture = (src, text, more = {}) => make("img", { src, alt: text, loading: "lazy", decoding: "async", ...more });

  function standsIn(card) {
    const failed = ["failed", "uncertain"].includes(card.state);
    const flag = Object.values(card.flags ?? {})[0];
    const title = failed ? `${card.state}: ${card.kind}` : card.src ? card.name.split("/").pop() : EXPLAINED[card.state];
    const more = card.message ?? flag ?? (card.src ? card.mime : "");
    return make("span", { class: failed || flag ? "words bad" : "words", title: more }, make("strong", {}, title), make("span", {}, short(more ?? "", 240)));
  }

  // A film stands for itself, at its first moment; one that the browser cannot play says so.
  function film(card, more = {}) {
    const video = make("video", { src: `${card.src}#t=0.1`, preload: "metadata", playsinline: true, "aria-label": alt(card), ...more });
    video.muted = !more.controls;
    video.addEventListener("error", () => video.replaceWith(make("span", { class: "words" }, make("strong", {}, card.mime), make("span", {}, "this browser cannot play it: open the file"))), { once: true });
    return video;
  }

  function frame(card, withBefore) {
    const open = make("button", { class: "frame", type: "button", "aria-label": `Look at ${card.name}`, onclick: () => zoom.open(card) });
    open.style.setProperty("--ratio", ratio(card).toFixed(4));
    if (isVideo(card) && !card.flags) {
      open.append(film(card, { tabindex: -1 }), make("span", { class: "play", "aria-hidden": "true" }, "▶"));
      if (run.rehearsal) open.append(make("span", { class: "stamp" }, "rehearsal"));
      return open;
    }
    const original = withBefore && card.thumb ? before(card) : undefined;
    if (!card.thumb && before(card)) open.append(picture(before(card).thumb, "", { class: "faint" }));
    if (original) open.append(picture(original.thumb, "", { class: "under" }));
    if (!card.thumb) open.classList.add("wordy");
    open.append(card.thumb ? picture(card.thumb, alt(card), original ? { class: "over" } : {}) : standsIn(card));
    if (run.rehearsal && card.thumb) open.append(make("span", { class: "stamp" }, "rehearsal"));
    if (!original) return open;
    const holder = make("div", { class: "holder" }, open);
    open.append(make("span", { class: "cut" }), make("span", { class: "side left" }, "before"), make("span", { class: "side right" }, "after"));
    holder.append(slider(holder, `Before and after of ${card.name}`, () => zoom.open(card)), make("span", { class: "ring" }));
    return holder;
  }

  function slider(holder, label, onclick) {
    const range = make("input", { class: "slide", type: "range", min: 0, max: 100, value: 50, "aria-label": label });
    let from = 0;
    range.addEventListener("input", () => { holder.style.setProperty("--at", `${range.value}%`); });
    range.addEventListener("keydown", (event) => { if (event.key === "Enter") onclick(); });
    range.addEventListener("pointerdown", (event) => { from = event.clientX; });
    range.addEventListener("pointermove", (event) => {  // a mouse need not press
      if (event.pointerType !== "mouse" || event.buttons) return;
      const box = range.getBoundingClientRect();
      range.value = String(Math.round(((event.clientX - box.left) / box.width) * 100));
      holder.style.setProperty("--at", `${range.value}%`);
    });
    range.addEventListener("click", (event) => { if (Math.abs(event.clientX - from) < 5) onclick(); });  // not at the end of a drag
    return range;
  }

  function flagList(card, long) {
    const flags = Object.entries(card.flags ?? {});
    if (!flags.length) return null;
    return make("ul", { class: "flags" }, ...flags.map(([flag, said]) => make("li", { title: said }, long ? `${run.flagWords[flag]}: ${said}` : run.flagWords[flag])));
  }

  function cardItem(card, withBefore) {
    const title = make("button", { class: "title", type: "button", onclick: () => zoom.open(card) }, card.name);
    const item = make("li", { class: "card", id: `card-${card.place}` }, frame(card, withBefore),
      make("div", { class: "caption" }, title, words[card.prompt] ? make("p", {}, words[card.prompt]) : null, flagList(card, false), earlier(card)));
    item.style.setProperty("--ratio", ratio(card).toFixed(4));
    return item;
  }

  const small = (one) => (isVideo(one) ? make("video", { src: `${one.src}#t=0.1`, preload: "metadata", muted: true, tabindex: -1 }) : make("img", { src: one.thumb ?? one.src, alt: "", loading: "lazy", decoding: "async" }));

  // What the row gave before: under another prompt, or bought once more.
  function earlier(card) {
    if (!card.older) return null;
    return make("div", { class: "earlier" }, make("span", {}, card.older.length === 1 ? "earlier" : `${card.older.length} earlier`),
      ...card.older.slice(0, 6).map((one) => make("button", { type: "button", "aria-label": `Compare ${card.name} with what it was${one.at ? ` on ${one.at.slice(0, 10)}` : ""}`, title: words[one.prompt], onclick: () => zoom.open(card, one) },
        small(one))));
  }

  // The three views.
  let found = cards;

  function showCards() {
    const start = chosen.page * PAGE[chosen.view];
    const shown = found.slice(start, start + PAGE[chosen.view]);
    const list = make("ul", { class: `cards ${chosen.view}` }, ...shown.map((card) => cardItem(card, chosen.view === "pairs")));
    list.style.setProperty("--tall", `${(chosen.view === "grid" ? 5 : 8) + chosen.size * (chosen.view === "grid" ? 1.6 : 2.6)}rem`);
    return list;
  }

  let sheetRows = [];
  const widened = new Set();  // cells that show all they hold
  function grouped() {
    const across = new Map(), down = new Map();
    for (const card of found) {
      const row = nameOf(card, chosen.rows), column = nameOf(card, chosen.columns);
      if (!across.has(column)) across.set(column, across.size);
      if (!down.has(row)) down.set(row, new Map());
      const cells = down.get(row);
      if (!cells.has(column)) cells.set(column, []);
      cells.get(column).push(card);
    }
    return { across: [...across.keys()], down: [...down] };
  }

  function showSheet() {
    const { across, down } = grouped();
    sheetRows = down;
    const start = chosen.page * PAGE.sheet;
    const heads = across.slice(0, MOST_COLUMNS);
    const shownRows = down.slice(start, start + PAGE.sheet);
    const originals = shownRows.map(([, cells]) => oneOriginal([...cells.values()].flat()));
    const withOriginals = originals.some(Boolean) && chosen.rows !== "original";
    const head = make("tr", {}, make("th", { scope: "col" }, chosen.rows === chosen.columns ? chosen.rows : `${chosen.rows} × ${chosen.columns}`),
      withOriginals ? make("th", { scope: "col" }, "original") : null,
      ...heads.map((name) => make("th", { scope: "col" }, name || "(none)")));
    const body = shownRows.map(([name, cells], number) => make("tr", {}, make("th", { scope: "row" }, name || "(none)"),
      withOriginals ? make("td", { class: "first" }, originals[number] ? originalTile(originals[number], [...cells.values()].flat()[0]) : make("span", { class: "none" }, "—")) : null,
      ...heads.map((column) => {
        const here = cells.get(column) ?? [], key = `${name}\n${column}`;
        if (!here.length) return make("td", {}, make("span", { class: "none" }, "—"));
        const all = widened.has(key) || here.length <= CELL;
        const more = here.length > CELL ? make("button", { type: "button", class: "more", "aria-expanded": String(all), onclick: () => { if (!widened.delete(key)) widened.add(key); draw(); document.querySelector(`[data-cell="${CSS.escape(key)}"]`)?.focus(); }, "data-cell": key },
          all ? "fewer" : `+${here.length - CELL}`) : null;
        return make("td", {}, make("div", { class: "cell" }, ...here.slice(0, all ? here.length : CELL).map((card) => frame(card, false)), more));
      })));
    const table = make("table", { class: "sheet" }, make("thead", {}, head), make("tbody", {}, ...body));
    const box = make("div", { class: "sheet-scroll", tabindex: 0, role: "region", "aria-label": `Contact sheet of ${chosen.rows} by ${chosen.columns}` }, table);
    box.style.setProperty("--tile", `min(${3.5 + chosen.size * 1.5}rem, ${20 + chosen.size * 4}vw)`);
    if (across.length <= MOST_COLUMNS) return box;
    return make("div", {}, make("p", { class: "some" }, `${MOST_COLUMNS} of ${count(across.length, "column")} are shown: choose another variable, or filter.`), box);
  }

  // The original that all of a row's cards share.
  function oneOriginal(row) {
    const first = row[0] && before(row[0]);
    return first && row.every((card) => before(card)?.thumb === first.thumb) ? first : null;
  }
  function originalTile(one, card) {
    const open = make("button", { class: "frame", type: "button", "aria-label": `Look at the original ${one.name}`, onclick: () => zoom.open(card) }, picture(one.thumb, `Original: ${one.name}`));
    open.style.setProperty("--ratio", Math.min(2.4, Math.max(0.45, one.width && one.height ? one.width / one.height : 1)).toFixed(4));
    return open;
  }

  const units = () => (chosen.view === "sheet" ? sheetRows.length : found.length);

  function pager(box) {
    const pages = Math.max(1, Math.ceil(units() / PAGE[chosen.view]));
    box.replaceChildren();
    if (pages < 2) return;
    const turn = (by) => () => { chosen.page += by; draw("pushState"); $("gallery").scrollIntoView(); };
    box.append(make("button", { type: "button", disabled: chosen.page === 0, onclick: turn(-1) }, "Earlier"),
      make("label", {}, "page ", make("input", { type: "number", min: 1, max: pages, value: chosen.page + 1, "aria-label": `Page, 1 to ${pages}`, onchange: (event) => { const to = Math.round(Number(event.target.value)); turn(Math.min(pages, Math.max(1, to || 1)) - 1 - chosen.page)(); } }), ` of ${pages.toLocaleString("en")}`),
      make("button", { type: "button", disabled: chosen.page >= pages - 1, onclick: turn(1) }, "Later"));
  }

  function empty() {
    if (!cards.length) return make("div", { class: "empty" }, make("strong", {}, "No jobs yet"), "The manifest of this run names none.");
    const clear = make("button", { type: "button", onclick: () => { Object.assign(chosen, { search: "", state: "", flag: "", where: {}, page: 0 }); $("search").value = ""; draw(); } }, "Show all");
    return make("div", { class: "empty" }, make("strong", {}, "Nothing matches"), "No pictures match", make("br"), clear);
  }

  function draw(how) {
    found = cards.filter(matches);
    const pages = () => Math.max(1, Math.ceil(units() / PAGE[chosen.view]));
    let body = !found.length ? empty() : chosen.view === "sheet" ? showSheet() : showCards();
    if (found.length && chosen.page >= pages()) {
      chosen.page = pages() - 1;
      body = chosen.view === "sheet" ? showSheet() : showCards();
    }
    $("show").replaceChildren(body);
    const bare = found.filter((card) => !card.src).length;
    const pictures = count(found.length - bare, kindOf) + (bare ? ` and ${count(bare, "job")} without one` : "");
    $("found").textContent = found.length === cards.length ? pictures : `${pictures}, of ${cards.length.toLocaleString("en")} in all`;
    document.querySelectorAll(".pager").forEach(pager);
    $("by").hidden = chosen.view !== "sheet";
    for (const radio of document.querySelectorAll('input[name="view"]')) radio.checked = radio.value === chosen.view;
    filters();
    writeAddress(null, how);
  }

  // The controls.
  function chip(text, number, key, value) {
    return make("button", { class: "chip", type: "button", "aria-pressed": String(chosen[key] === value), onclick: () => { chosen[key] = chosen[key] === value ? "" : value; chosen.page = 0; draw(); refocus(key, value); }, "data-chip": `${key}:${value}` },
      `${text} `, make("b", {}, number.toLocaleString("en")));
  }
  const refocus = (key, value) => document.querySelector(`[data-chip="${key}:${value}"]`)?.focus();

  const tally = (list) => list.reduce((counts, one) => counts.set(one, (counts.get(one) ?? 0) + 1), new Map());
  const jobs = new Map(cards.map((card) => [card.id, card.state]));  // a job with several outputs has several cards
  const byState = tally([...jobs.values()]);
  const byFlag = tally(cards.flatMap((card) => Object.keys(card.flags ?? {})));

  function choice(field) {
    const select = make("select", { onchange: () => { if (select.value === "*") delete chosen.where[field]; else chosen.where[field] = select.value.slice(1); chosen.page = 0; draw(); document.querySelector(`select[data-field="${CSS.escape(field)}"]`)?.focus(); }, "data-field": field },
      make("option", { value: "*" }, "all"), ...[...order.get(field).keys()].map((value) => make("option", { value: `=${words[value]}`, selected: chosen.where[field] === words[value] }, short(words[value] || "(none)", 60))));
    return make("label", {}, make("span", {}, field), select);
  }

  function filters() {
    const states = byState.size > 1 ? STATES.filter((state) => byState.has(state)).map((state) => chip(state, byState.get(state), "state", state)) : [];
    const flags = [...byFlag].map(([flag, number]) => chip(run.flagWords[flag], number, "flag", flag));
    const group = (name, chips) => (chips.length ? [make("div", { class: "chips", role: "group", "aria-label": name }, make("span", { class: "of" }, name), ...chips)] : []);
    const selects = fields.filter((field) => size(field) <= 300).slice(0, 6).map(choice);
    $("filters").replaceChildren(...group("Jobs", states), ...group("Pictures", flags), ...selects);
    const set = [chosen.search, chosen.state, chosen.flag, ...Object.values(chosen.where)].filter(Boolean).length;
    $("more").textContent = set ? `Search and filter (${set})` : "Search and filter";
  }

  function setUp() {
    const originals = new Set(cards.flatMap((card) => card.before.map((one) => one.name))).size;
    const pictures = cards.filter((card) => card.src).length;
    const models = [...(order.get("model")?.keys() ?? [])].map((value) => words[value]);
    $("line").textContent = [`${count(pictures, kindOf)}${originals ? ` from ${count(originals, "original")}` : ""}`, short(models.join(", "), 120)].filter(Boolean).join(" · ");
    for (const key of ["rows", "columns"]) {
      const select = $(`by-${key}`);
      select.append(...fields.map((field) => make("option", { value: field, selected: chosen[key] === field }, `${field} (${size(field)})`)));
      select.addEventListener("change", () => { chosen[key] = select.value; chosen.page = 0; draw(); });
    }
    if (fields.length < 2) document.querySelector('input[value="sheet"]').closest("label").remove();
    if (!anyBefore) document.querySelector('input[value="pairs"]').closest("label").remove();
    $("size").value = String(chosen.size);
    $("size").addEventListener("input", () => { chosen.size = Number($("size").value); draw(); });
    $("more").addEventListener("click", () => { const open = $("choices").classList.toggle("open"); $("more").setAttribute("aria-expanded", String(open)); });
    $("search").value = chosen.search;
    let typing;
    $("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => { chosen.search = $("search").value.trim(); chosen.page = 0; draw(); }, 120); });
    document.querySelectorAll('input[name="view"]').forEach((radio) => radio.addEventListener("change", () => { chosen.view = radio.value; chosen.page = 0; draw(); }));
    $("theme").addEventListener("click", () => {
      const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      document.documentElement.dataset.theme = dark ? "light" : "dark";
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && !zoom.shown && document.activeElement !== $("search")) { event.preventDefault(); $("search").focus(); }
    });
  }

  // One picture, large.
  const zoom = (() => {
    const dialog = $("zoom"), stage = $("stage"), range = $("slider");
    let card, scale = 0, holder, comes, kept = 50, closed = false, base;

    // What the picture is compared with: its original, or what the row gave earlier.
    const original = () => base ?? before(card);
    const step = (by) => { const next = found[found.indexOf(card) + by]; if (next) show(next); };

    function fitted() {
      const video = holder?.querySelector("video");
      const only = !card.thumb && !video ? (base ?? before(card)) : undefined;
      const width = card.width || video?.videoWidth || only?.width || 1000, height = card.height || video?.videoHeight || only?.height || 1000;
      const fit = Math.min(stage.clientWidth / width, stage.clientHeight / height, 1.5);
      const factor = scale || fit;
      holder?.style.setProperty("--w", `${width * factor}px`);
      holder?.style.setProperty("--h", `${height * factor}px`);
      $("fit").textContent = scale ? `${Math.round(factor * 100)} %` : "Fit";
      return factor;
    }

    function rescale(by) {
      const now = fitted();
      scale = by === 0 ? 0 : Math.min(8, Math.max(0.05, now * by));
      fitted();
      if (scale) stage.scrollTo((stage.scrollWidth - stage.clientWidth) / 2, (stage.scrollHeight - stage.clientHeight) / 2);
    }

    function compare(value) {
      range.value = String(value);
      holder?.style.setProperty("--at", `${value}%`);
    }

    function large() {
      if (base && (isVideo(base) || !card.thumb)) {  // alone: films are not compared, and there may be no picture yet
        const alone = isVideo(base) ? film(base, { controls: true, "aria-label": `Earlier: ${base.name}` }) : make("img", { src: base.src, alt: `Earlier: ${base.name}` });
        if (isVideo(base)) alone.addEventListener("loadedmetadata", () => fitted());
        return make("div", { class: "picture" }, alone, make("span", { class: "side left" }, "earlier"));
      }
      if (!card.thumb && !isVideo(card)) {
        const only = before(card);
        return only ? make("div", { class: "picture" }, make("img", { src: only.src, alt: `Original: ${only.name}`, class: "faint" }), standsIn(card)) : null;
      }
      if (isVideo(card)) {
        const video = film(card, { controls: true });
        video.addEventListener("loadedmetadata", () => fitted());
        return make("div", { class: "picture" }, video);
      }
      const box = make("div", { class: "picture" });
      const one = original();
      if (one) box.append(make("img", { src: one.src, alt: `Original: ${one.name}`, class: "under" }));
      box.append(make("img", { src: card.src, alt: alt(card), class: one ? "over" : null }));
      if (one) box.append(make("span", { class: "cut" }), make("span", { class: "side left" }, base ? "earlier" : "before"), make("span", { class: "side right" }, base ? "now" : "after"));
      box.addEventListener("pointermove", (event) => { if (scale || (one && (event.pointerType === "mouse" || event.buttons))) drag(event); });
      box.addEventListener("pointerdown", (event) => { if (scale || one) { event.preventDefault(); drag(event); } });
      if (run.rehearsal) box.append(make("span", { class: "stamp" }, "rehearsal"));
      return box;
    }
    let grip;
    function drag(event) {
      if (scale) {  // larger than the window: it is moved, and the line below compares
        if (event.type === "pointerdown") grip = { x: event.clientX, y: event.clientY, left: stage.scrollLeft, top: stage.scrollTop };
        else if (grip && event.buttons) stage.scrollTo(grip.left + grip.x - event.clientX, grip.top + grip.y - event.clientY);
        return;
      }
      const box = holder.getBoundingClientRect();
      compare(Math.round(Math.min(100, Math.max(0, ((event.clientX - box.left) / box.width) * 100))));
    }

    function listed() {
      const facts = [["State", card.state]];
      for (const [field, value] of Object.entries(card.values)) facts.push([field, words[value]]);
      for (const one of card.before) if (one.name !== nameOf(card, "original")) facts.push(["original", one.name]);
      if (card.width) facts.push(["Size", `${card.width} × ${card.height}, ${(card.bytes / 1000).toLocaleString("en", { maximumFractionDigits: 0 })} KB`]);
      if (card.billed !== undefined) facts.push([run.rehearsal ? "Pretended bill" : "Billed", `$${card.billed.toFixed(2)}`]);
      else if (card.estimated !== undefined) facts.push(["Estimated", `$${card.estimated.toFixed(2)}`]);
      if (card.took !== undefined) facts.push(["Took", `${card.took} s`]);
      if (card.submitted) facts.push(["Sent", card.submitted.replace("T", " ").replace(/\.\d+Z$/, " UTC")]);
      if (card.request) facts.push(["Request", card.request]);
      facts.push(["Job", card.id], ["Manifest row", String(card.row)]);
      for (const [name, value] of Object.entries(card.inputs ?? {})) facts.push([name, typeof value === "string" ? value : JSON.stringify(value)]);
      return facts;
    }

    function told() {
      const prompt = words[card.prompt];
      const copy = make("button", { type: "button", onclick: (event) => navigator.clipboard?.writeText(prompt).then(() => { event.target.textContent = "Copied"; }) }, "Copy prompt");
      const twin = card.twin !== undefined ? make("button", { type: "button", onclick: () => show(cards[card.twin]) }, "Show the identical one") : null;
      const links = [card.src ? make("a", { href: card.src, target: "_blank", rel: "noopener" }, "Open the file") : null,
        card.sidecar ? make("a", { href: card.sidecar, target: "_blank", rel: "noopener" }, "Open its sidecar") : null,
        ...card.before.filter((one) => one.link).map((one) => make("a", { href: one.link, target: "_blank", rel: "noopener noreferrer" }, "Open the original"))];
      const older = (card.older ?? []).map((one) => make("button", { type: "button", class: "older", "aria-pressed": String(base === one), onclick: () => show(card, base === one ? undefined : one) },
        small(one), make("span", {}, make("b", {}, one.at ? one.at.slice(0, 16).replace("T", " ") : "earlier"), words[one.prompt] === prompt ? "the same prompt" : words[one.prompt])));
      $("facts").replaceChildren(make("h2", {}, card.name), ...(prompt ? [make("p", { class: "prompt" }, prompt), copy] : []), ...(twin ? [twin] : []),
        ...(flagList(card, true) ? [flagList(card, true)] : []), ...(card.message ? [make("ul", { class: "flags" }, make("li", {}, `${card.kind}: ${card.message}`))] : []),
        make("dl", {}, ...listed().flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])), make("p", { class: "links" }, ...links),
        ...(older.length ? [make("h3", {}, "Earlier results of this row"), ...older] : []));
    }

    function show(next, compared) {
      card = next;
      base = compared;
      holder = large();
      stage.replaceChildren(holder ?? standsIn(card));
      $("compare").hidden = !(card.thumb && original() && !isVideo(original()));
      for (const id of ["in", "out", "fit"]) $(id).disabled = !holder;
      told();
      const place = found.indexOf(card);
      $("place").textContent = place < 0 ? "" : `${(place + 1).toLocaleString("en")} of ${found.length.toLocaleString("en")}`;
      $("previous").disabled = place < 1;
      $("following").disabled = place < 0 || place === found.length - 1;
      scale = 0;
      fitted();
      compare(original() ? 50 : 0);
      writeAddress(card.name);
      $("facts").scrollTop = 0;
    }

    function open(next, compared) {
      comes = document.activeElement;
      writeAddress(next.name, "pushState");
      dialog.showModal();
      show(next, compared);
      stage.focus();
    }

    const keys = {
      ArrowLeft: () => step(-1), ArrowRight: () => step(1), "+": () => rescale(1.5), "=": () => rescale(1.5), "-": () => rescale(1 / 1.5), 0: () => rescale(0),
      b: () => {
        if (!original()) return;
        const whole = Number(range.value) >= 100;
        if (!whole) kept = range.value;
        compare(whole ? kept : 100);
      }, Home: () => show(found[0]), End: () => show(found[found.length - 1]),
    };
    dialog.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || (event.target === range && /^(Arrow|Home|End)/.test(event.key))) return;
      if (scale && event.target === stage && event.key.startsWith("Arrow")) return;  // it scrolls
      const act = keys[event.key] ?? keys[event.key.toLowerCase()];
      if (act) { event.preventDefault(); act(); }
    });
    dialog.addEventListener("close", () => {
      if (history.state?.open) { closed = true; history.back(); }
      const here = document.getElementById(`card-${card.place}`)?.querySelector("button.title");
      if (here && !here.closest("li").contains(comes)) here.focus();
      else comes?.focus?.();
    });
    range.addEventListener("input", () => compare(Number(range.value)));
    stage.addEventListener("dblclick", () => rescale(scale ? 0 : 1 / fitted()));
    for (const [id, act] of [["previous", () => step(-1)], ["following", () => step(1)], ["in", () => rescale(1.5)], ["out", () => rescale(1 / 1.5)], ["fit", () => rescale(0)], ["close", () => dialog.close()]]) $(id).addEventListener("click", act);
    addEventListener("resize", () => { if (dialog.open) fitted(); });
    addEventListener("popstate", () => {
      if (closed) { closed = false; return; }  // by its own button: the page is as it was
      if (dialog.open) { if (!history.state?.open) dialog.close(); return; }
      readAddress();
      $("search").value = chosen.search;
      draw();
    });
    return { open, get shown() { return dialog.open; } };
  })();

  addEventListener("beforeprint", () => { PAGE.pairs = PAGE.grid = PAGE.sheet = 1000; draw(); });
  addEventListener("afterprint", () => { Object.assign(PAGE, { pairs: 60, grid: 120, sheet: 30 }); draw(); });
  readAddress();
  const opened = new URLSearchParams(location.hash.slice(1)).get("open");
  setUp();
  draw();
  const named = opened && cards.find((card) => card.name === opened);
  if (named) zoom.open(named);
  document.documentElement.dataset.ready = "yes";
})();
