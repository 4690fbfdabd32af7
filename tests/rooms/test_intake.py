"""What people bring: folders of mixed photos, shops' tables, URLs that lead nowhere."""

import asyncio
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from batcher.checks.doctor import why_no_media
from batcher.clock import Clock, next_at
from batcher.engine.deadline import Deadline
from batcher.hosting.inline import ImageFactsCache, ImageNotUsable
from batcher.manifest import globs
from batcher.manifest.expand import Options
from batcher.manifest.survey import survey_folder, survey_table
from batcher.settings import Limits
from tests.damaged import damaged_png
from tests.rooms.conftest import Folder

URL = "https://i.invalid/1.png"
Yaml = Callable[[str], Folder]
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64
OF_PHOTOS = "inputs: {prompt: '{{ stem }}', image_urls: ['{{ path }}']}\n"


def touched(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        ("p/*.jpg", ["p/a.JPG", "p/b.jpg"]),
        ("P/*.JPG", ["p/a.JPG", "p/b.jpg"]),
        ("p", ["p/a.JPG", "p/b.jpg", "p/c.heic"]),
        ("p/", ["p/a.JPG", "p/b.jpg", "p/c.heic"]),
        ("p/**", ["p/a.JPG", "p/b.jpg", "p/c.heic", "p/q/d.png", "p/q/r/e.webp"]),
        ("p/**/*.png", ["p/q/d.png"]),
        ("**/*.txt", ["p/notes.txt"]),
        ("p/*", ["p/a.JPG", "p/b.jpg", "p/c.heic", "p/notes.txt"]),
        ("p/.*", ["p/.h.jpg"]),
        (["p/q/**", "p/*.jpg", "p/b.*"], ["p/q/d.png", "p/q/r/e.webp", "p/a.JPG", "p/b.jpg"]),
        ("p/[ab].jpg", ["p/a.JPG", "p/b.jpg"]),
        ("p/q/../b.jpg", ["p/q/../b.jpg"]),
        ("nowhere/*.jpg", []),
    ],
)
def test_a_pattern_finds_files_whatever_their_letters_case_and_no_hidden_ones(
    tmp_path: Path, patterns: str | list[str], found: list[str]
) -> None:
    root = touched(tmp_path, "p/b.jpg", "p/a.JPG", "p/c.heic", "p/.h.jpg", "p/notes.txt", "p/q/d.png", "p/q/r/e.webp")
    touched(root, "p/.hidden/x.jpg")
    (root / "p/q/up").symlink_to(root / "p")  # what follows it never ends
    assert [file.relative_to(root).as_posix() for file in globs.files(patterns, root)] == found
    absolute = [f"{root}/{one}" for one in ([patterns] if isinstance(patterns, str) else patterns)]
    assert globs.files(absolute, Path("/")) == [root / name for name in found]


def test_a_folder_whose_name_looks_like_a_pattern_is_named_by_an_escaped_one(tmp_path: Path) -> None:
    touched(tmp_path, "ph [old]/a.jpg")
    assert (
        globs.files("ph [[]old]/", tmp_path) == globs.files("ph [[]old]/*", tmp_path) == [tmp_path / "ph [old]/a.jpg"]
    )


@pytest.mark.parametrize("glob", ["''", "[]", "[a.jpg, '']", '"a\\0"', "3"])
def test_what_is_no_pattern_is_a_fault(yaml: Yaml, glob: str) -> None:
    assert "m.yaml:3: jobs" in yaml(OF_PHOTOS + f"jobs: {{glob: {glob}}}\n").faults()[0]


def test_photos_that_cannot_be_sent_are_called_what_they_are_by_their_paths(yaml: Yaml) -> None:
    folder = yaml(OF_PHOTOS + "jobs: {glob: p/}\n").photo("p/a.jpg").photo("p/b.JPEG", kind="JPEG").photo("p/c.webp")
    folder.photo("p/d.tif").photo("p/e.gif").write("p/f.HEIC", HEIC).write("p/g.jpg", b"").write("p/h.jpg", b"text")
    for name in ("a.jpg", "c.webp"):
        whole = (folder.path / "p" / name).read_bytes()
        folder.write(f"p/cut-{name}", whole[: len(whole) * 2 // 3])
        folder.write(f"p/padded-{name}", whole[: len(whole) * 2 // 3] + b"\0" * (len(whole) // 3))
    faults = {fault.partition(":")[0]: fault for fault in folder.faults()}
    assert faults["p/f.HEIC"].startswith("p/f.HEIC:1: image_urls: is a HEIC photo; local images are sent as JPEG")
    assert "heif-convert" in faults["p/f.HEIC"] and "sips" in faults["p/f.HEIC"]
    assert "is a TIFF; " in faults["p/d.tif"] and "magick" in faults["p/d.tif"]
    assert "is a JPEG that is cut off (it ends too soon): copy it again" in faults["p/cut-a.jpg"]
    assert "cut off" in faults["p/padded-a.jpg"] and "copy it again" in faults["p/cut-c.webp"]
    assert "is empty" in faults["p/g.jpg"] and "is not a JPEG, PNG or WebP" in faults["p/h.jpg"]
    photos = folder.expansion_counts.photos
    assert str(photos).startswith("12 photos: 3 usable, 1 GIF, 1 HEIC, 1 TIFF, 5 broken, 1 no picture"), str(photos)
    assert photos.named["p/f.HEIC"] == "HEIC"


def test_a_photo_of_several_pictures_is_a_jpeg(yaml: Yaml) -> None:
    folder = yaml(OF_PHOTOS + "jobs: {glob: '*.jpg'}\n")
    first, second = (Image.effect_noise((60, 40), 80).convert("RGB") for _ in range(2))
    first.save(folder.path / "a.jpg", "MPO", save_all=True, append_images=[second])
    with Image.open(folder.path / "a.jpg") as made:
        assert made.format == "MPO"
    assert [job.sources for job in folder.jobs()] == [("a.jpg",)]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://shop.invalid/a.jpg", "is not https"),
        ("https://localhost/a.jpg", "is at localhost, which no server on the internet reaches"),
        ("https://nas/a.jpg", "is at nas"),
        ("https://nas.local:8443/a.jpg", "is at nas.local"),
        ("https://192.168.1.7/a.jpg", "is at 192.168.1.7"),
        ("https://[fe80::1]/a.jpg", "is at fe80::1"),
        ("https://169.254.169.254/latest", "is at 169.254.169.254"),
        ("https://127.0.0.1:8080/a.jpg", "is at 127.0.0.1"),
        ("https://2130706433/a.jpg", "is at 2130706433"),
        ("https:///a.jpg", "has no host"),
        ("https://", "has no host"),
        ("https:a.jpg", "has no host"),
        ("https://[x/a.jpg", "is not a URL"),
        ("data:text/html;base64,PGI+", "is a data URI that is not an image"),
        ("data:image/png;base64,PGI+", "is not a JPEG, PNG or WebP"),
        ("data:,x", "is a data URI that is not an image"),
    ],
)
def test_a_url_that_the_server_cannot_fetch_is_a_fault(yaml: Yaml, url: str, said: str) -> None:
    (fault,) = yaml(f"inputs: {{prompt: a, image_urls: ['{url}']}}\n").faults()
    assert said in fault, fault


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/a.jpg", "https://localhost/a.jpg", "http://[::1]:9/a.jpg"])
def test_a_server_on_this_machine_reaches_its_own_addresses_and_no_others(yaml: Yaml, url: str) -> None:
    folder = yaml(f"inputs: {{prompt: a, image_urls: ['{url}']}}\n")
    assert len(folder.jobs(options=Options(loopback=True))) == 1
    folder = yaml("inputs: {prompt: a, image_urls: ['http://192.168.1.7/a.jpg']}\n")
    assert "is at 192.168.1.7" in folder.faults(options=Options(loopback=True))[0]


@pytest.mark.parametrize(
    "url",
    ["https://i.invalid/1.png", "HTTPS://CDN.Shop.com/a%20b.jpg?x=1", "https://xn--bcher-kva.de:8443/a", "https://8.8.8.8/a",
     "https://bücher.de/a.jpg", "https://a_b.shop.com/x", "https://shop.com./x"],
)  # fmt: skip
def test_a_public_url_is_none(yaml: Yaml, url: str) -> None:
    assert len(yaml(f"inputs: {{prompt: a, image_urls: ['{url}']}}\n").jobs()) == 1


def test_what_where_leaves_out_is_not_checked(folder: Folder, yaml: Yaml) -> None:
    yaml("inputs: {prompt: '{{ title }}', image_urls: ['{{ photo }}']}\njobs: r.csv\n")
    folder.write("r.csv", f"title,photo,ok\na,{URL},1\nb,nowhere.png,0\nc,http://nas/x.png,0\nd,{URL},1\ne,,0\n")
    jobs = folder.jobs(options=Options(where="ok == '1'"))
    assert [job.inputs["prompt"] for job in jobs] == ["a", "d"]
    assert folder.expansion_counts.photos.total == 0 and folder.expansion_counts.rejected == 0
    assert len(folder.faults(options=Options(where="ok == '0'"))) == 3
    whole = folder.write("r.csv", f"title,photo,ok\na,{URL},1\na,{URL},0\na,{URL},1\n").jobs()
    chosen = folder.jobs(options=Options(where="ok == '1'"))
    assert [job.id for job in chosen] == [whole[0].id, whole[2].id], "what is left out counts as a sample all the same"


def test_a_column_is_read_by_any_heading_in_templates_and_in_where(folder: Folder, yaml: Yaml) -> None:
    yaml("inputs: {prompt: '{{ row[\"Image Position\"] }} {{ row.t }}', image_urls: ['{{ row[\"Image Src\"] }}']}\n"
         "jobs: {file: r.csv, columns: {t: 'My Title'}}\n")  # fmt: skip
    folder.write("r.csv", f"My Title, Image Position ,Image Src,empty\nA,1,{URL},\nB,2,{URL},\n")
    assert [job.inputs["prompt"] for job in folder.jobs()] == ["1 A", "2 B"]
    assert folder.jobs()[0].vars == {"t": "A", "Image Position": "1", "Image Src": URL}, (
        "the row itself is not a variable"
    )
    where = Options(where="row['Image Position'] == '2' and row['empty'] == ''")
    assert [job.inputs["prompt"] for job in folder.jobs(options=where)] == ["2 B"]
    (fault,) = folder.faults(options=Options(where="row['Image Pos'] == '2'"))
    assert fault == "--where:1: asks for `Image Pos`, which is not a column of r.csv; did you mean `Image Position`?"
    yaml("inputs: {prompt: '{{ row[\"Titel\"] }}', image_urls: ['{{ row[\"Image Src\"] }}']}\njobs: r.csv\n")
    (fault,) = folder.faults()
    assert "inputs.prompt: asks for `Titel`, which is not a column of r.csv" in fault
    folder.write("r.jsonl", json.dumps({"my title": "x", "p": URL}) + "\n" + json.dumps({"p": URL}) + "\n")
    yaml("inputs: {prompt: '{{ row[\"my title\"] }}', image_urls: ['{{ p }}']}\njobs: r.jsonl\n")
    assert folder.faults() == ["r.jsonl:2: prompt: the row has no column `my title`"]


def test_a_column_called_row_is_what_it_was(yaml: Yaml) -> None:
    assert yaml(f"inputs: {{prompt: '{{{{ row }}}}', image_urls: [{URL}]}}\njobs: [{{row: 7}}]\n").jobs()[0].vars == {
        "row": 7
    }


def test_an_empty_cell_is_an_empty_text_to_templates_and_not_given_to_the_model(folder: Folder, yaml: Yaml) -> None:
    text = (
        "inputs: {prompt: \"[{{ a }}] {{ a | default('none') }} {{ 'x' if a is defined else 'y' }} {{ row['a b'] }}\", "
        f"image_urls: [{URL}], resolution: 2K}}\njobs: r.csv\n"
    )
    yaml(text).write("r.csv", "n,a,resolution,a b\n1,,,\n2,v,1K,w\n")
    first, second = folder.jobs()
    assert (first.inputs["prompt"], first.inputs["resolution"]) == ("[] none y ", "2K")
    assert (second.inputs["prompt"], second.inputs["resolution"]) == ("[v] v x w", "1K")
    assert first.vars == {"n": "1"}
    assert folder.expansion_counts.blank == {"a": 1, "a b": 1}
    assert [job.vars["n"] for job in folder.jobs(options=Options(where="a == ''"))] == ["1"]
    assert "`b` is undefined" in folder.faults(options=Options(where="b == ''"))[0].replace("'", "`")
    yaml(f"inputs: {{prompt: '{{{{ a }}}}.', image_urls: [{URL}]}}\njobs: [{{a: null}}, {{a: x}}]\n")
    assert [job.inputs["prompt"] for job in folder.jobs()] == [".", "x."]


def test_chance_draws_the_same_with_empty_columns_beside(folder: Folder, yaml: Yaml) -> None:
    yaml(
        "inputs: {prompt: \"{{ ['a','b','c','d','e','f','g'] | random }} {{ row['n'] }}\", image_urls: ['"
        + URL
        + "']}\njobs: r.csv\n"
    )
    rows = [f"{n}" for n in range(20)]
    with_column = folder.write("r.csv", "n,x\n" + "".join(f"{n},\n" for n in rows)).jobs()
    without = folder.write("r.csv", "n\n" + "".join(f"{n}\n" for n in rows)).jobs()
    assert [job.id for job in with_column] == [job.id for job in without]


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_cells_are_carried_down_where_that_is_said(folder: Folder, yaml: Yaml, name: str) -> None:
    rows: list[dict[str, str | None]] = [
        {"H": "mug", "T": "Stone Mug"},
        {"H": "mug"},
        {"H": "tray", "T": "Oak Tray"},
        {"H": "", "T": None},
    ]
    if name == "r.csv":
        folder.write(name, "H,T\n" + "".join(f"{row.get('H') or ''},{row.get('T') or ''}\n" for row in rows))
    else:
        folder.write(name, "".join(json.dumps(row) + "\n" for row in rows))
    yaml(
        f"inputs: {{prompt: '{{{{ H }}}} {{{{ T }}}}', image_urls: [{URL}]}}\njobs: {{file: {name}, fill_down: [T, H]}}\n"
    )
    assert [job.inputs["prompt"] for job in folder.jobs()] == ["mug Stone Mug"] * 2 + ["tray Oak Tray"] * 2
    assert folder.jobs()[1].sample == 2
    if name == "r.csv":
        yaml(f"inputs: {{prompt: '{{{{ H }}}}', image_urls: [{URL}]}}\njobs: {{file: {name}, fill_down: [Titel]}}\n")
        assert folder.faults()[0] == "r.csv:1: fill_down: there is no column `Titel`; known: H, T"


def test_a_row_that_was_filled_is_set_aside_filled(folder: Folder, yaml: Yaml) -> None:
    yaml("inputs: {prompt: '{{ T }}', image_urls: ['{{ P }}']}\njobs: {file: r.csv, fill_down: [T]}\n")
    folder.write("r.csv", f"T,P\nMug,{URL}\n,nowhere.png\n")
    rejected = []
    folder.jobs(options=Options(skip_invalid=True), reject=lambda row, _header, _why: rejected.append([*row.cells]))
    assert rejected == [["Mug", "nowhere.png"]], "in a file without the row above it would be another product"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.csv", "promt,image_urls\n" + f"a,{URL}\n" * 80, "it is not a column of r.csv, and not in `inputs`; did you mean `promt`?"),
        ("r.jsonl", json.dumps({"image_urls": [URL]}) + "\n" + json.dumps({"image_urls": [URL], "x": 1}) + "\n", "no row of r.jsonl has it"),
    ],
)  # fmt: skip
def test_an_input_that_no_row_gives_is_one_fault(folder: Folder, name: str, content: str, said: str) -> None:
    (fault,) = folder.write(name, content).faults(name)
    assert fault.startswith(f"{name}:1: prompt: is missing, and the model requires it: ") and said in fault


def test_a_row_of_jsonl_that_lacks_what_others_have_is_named(folder: Folder) -> None:
    folder.write("r.jsonl", json.dumps({"prompt": "a", "image_urls": [URL]}) + "\n" + json.dumps({"image_urls": [URL]}))
    assert folder.faults("r.jsonl") == ["r.jsonl:2: prompt: is missing, and the model requires it"]


def test_a_clash_of_names_shows_both_photos(yaml: Yaml) -> None:
    folder = (
        yaml(OF_PHOTOS + "jobs: {glob: '**'}\noutput: {name: '{{ stem }}'}\n").photo("a/IMG_1.jpg").photo("b/img_1.PNG")
    )
    assert folder.faults() == [
        "b/img_1.PNG:1: output.name: `img_1` is also a file of a/IMG_1.jpg; let the name tell them apart"
    ]


def test_a_survey_finds_photos_in_all_folders_but_those_of_runs(folder: Folder) -> None:
    for name in ("a.JPG", "cam/1/x.jpeg", "web/a.png", "runs/old/files/y.png", ".trash/z.png"):
        folder.photo(name, kind={"JPG": "JPEG", "jpeg": "JPEG"}.get(name.rpartition(".")[2]))
    folder.write("runs/old/ledger.sqlite", b"").write("cam/out/ledger.sqlite", b"").photo("cam/out/files/w.png")
    folder.write("other/ledger.sqlite", b"").photo("other/files/z.png").write("web/b.heic", HEIC)
    found = survey_folder(folder.path)
    assert found.patterns == ["./", "cam/**", "web/"]
    assert str(found.photos) == "4 photos: 3 usable, 1 HEIC"
    assert found.name == "{{ path | slug }}", "two are called a"
    assert len(globs.files(found.patterns, folder.path)) == 4


def test_a_survey_of_a_shops_export_finds_its_columns(folder: Folder) -> None:
    folder.write("p.csv", "Handle,Title,Variant SKU,Image Src,Image Position\n"
                 f"mug,Mug,M-1,{URL},1\nmug,,,{URL}?2,2\nmug,,M-2,,\ntray,Tray,T-1,{URL}?3,1\n")  # fmt: skip
    table = survey_table(folder.path / "p.csv")
    assert (table.image, table.title, table.key, table.fill_down) == ("Image Src", "Title", "Handle", ["Title"])
    assert table.without_image
    folder.write("l.csv", "Größe;photo\ngroß;a.jpg\n".encode("cp1252"))
    table = survey_table(folder.path / "l.csv")
    assert (table.form.encoding, table.headings, table.image) == ("cp1252", ["Größe", "photo"], "photo")


def jpeg() -> bytes:
    made = io.BytesIO()
    Image.effect_noise((60, 60), 60).convert("RGB").save(made, "JPEG")
    return made.getvalue()


@pytest.mark.parametrize(
    ("head", "length", "said"),
    [
        (jpeg()[:64], 1000, ""),
        (b"RIFF\0\0\0\0WEBPVP8 ", None, ""),
        (jpeg()[:64], 60_000_000, "it has 60 MB; the API takes about 50 MB of image"),
        (b"\0\0\0\x20ftypisom", 60_000_000, ""),
        (b"\0\0\0\x20ftypisom", 160_000_000, "it has 160 MB; the API takes about 100 MB of video"),
        (b"\n <!DOCTYPE html><title>Sign in", 2000, "it is a web page, perhaps one to sign in"),
        (b'{"error": "no such key"}', 20, "it is neither image nor video"),
        (b"", 0, "it is empty"),
    ],
)
def test_a_doctor_knows_an_image_by_its_bytes(head: bytes, length: int | None, said: str) -> None:
    assert why_no_media(head, length).startswith(said) and bool(said) == bool(why_no_media(head, length))


def test_a_time_of_day_that_is_past_is_tomorrows() -> None:
    noon = next_at(1_700_000_000.0, "12:00")
    assert next_at(noon - 60, "12:00") == noon
    assert next_at(noon, "12:00") == noon + 86_400
    assert next_at(noon + 1, "11:59") == noon - 60 + 86_400


async def test_a_deadline_hears_of_the_time_also_when_the_machine_has_slept() -> None:
    noon = next_at(1_700_000_000.0, "12:00")
    now, said = [noon - 3600.0], list[str]()
    deadline = Deadline(Clock(lambda: now[0]), Limits(until="12:00"), said.append)
    deadline.look()
    assert said == []
    now[0] = noon + 5 * 3600.0  # the lid was shut
    deadline.look()
    deadline.look()
    deadline.stop()
    assert said == ["it is 12:00, the time set"]
    short = Deadline(Clock(lambda: now[0]), Limits(max_time=0.01, until="12:00"), said.append)
    while len(said) < 2:
        await asyncio.sleep(0)
    short.stop()
    assert said[1] == "the time set, 0.01 s, is over"


def test_a_photo_whose_structure_is_right_and_whose_pixels_are_not_passes_the_look(folder: Folder) -> None:
    """It is found before it is sent: see test_a_damaged_photo_fails_before_anything_is_sent."""
    look = ImageFactsCache().at(folder.write("a.png", damaged_png()).path / "a.png")
    assert look.format == "PNG"
    with pytest.raises(ImageNotUsable, match="cut off or damaged"):
        ImageFactsCache().at(folder.write("b.png", damaged_png()[:-30]).path / "b.png")


def test_what_where_leaves_out_takes_no_sample_and_no_name_if_it_cannot_be_made(folder: Folder, yaml: Yaml) -> None:
    """Or the narrowed run numbers its jobs otherwise than the whole, and buys them again."""
    for name in ("p0.png", "p1.png"):
        folder.photo(name)
    yaml(
        "inputs: {prompt: '{{ what }} {{ size }}', image_urls: ['{{ photo }}']}\nmatrix: {size: [small, large]}\n"
        "jobs: r.csv\noutput: {name: '{{ sku }}-{{ size }}'}\n"
    )
    folder.write("r.csv", "sku,what,photo\nA1,cup,p0.png\nA1,mug,p1.png\nA2,mug,p1.png\n")
    whole = folder.jobs(options=Options(skip_invalid=True), reject=lambda *_: None)
    narrow = folder.jobs(options=Options(where="sku == 'A2'", skip_invalid=True), reject=lambda *_: None)
    assert [job.id for job in narrow] == [job.id for job in whole if job.vars["sku"] == "A2"]
    assert [job.name for job in narrow] == ["A2-small", "A2-large"]
    strict = folder.jobs(options=Options(where="sku == 'A2'"))
    assert [(job.id, job.sample) for job in strict] == [(job.id, 1) for job in narrow]
    yaml("inputs: {prompt: x, image_urls: ['{{ photo }}']}\nmatrix: {aspect_ratio: [null, '1:1']}\njobs: s.csv\n")
    folder.write("s.csv", "photo,aspect_ratio\np0.png,9:99\np0.png,4:5\n")
    whole = folder.jobs(options=Options(skip_invalid=True), reject=lambda *_: None)
    narrow = folder.jobs(options=Options(where="index == 2", skip_invalid=True), reject=lambda *_: None)
    assert [job.id for job in narrow] == [job.id for job in whole] and folder.expansion_counts.unmade == 1


def test_an_empty_cell_is_neither_a_text_nor_a_sequence_to_a_test_and_row_is_read_only_as_a_whole(
    folder: Folder, yaml: Yaml
) -> None:
    """As before there were empty cells: a manifest that ran then asks for the same now."""
    yaml(
        "inputs: {prompt: \"{{ a }}{% if c is string %} in {{ c }}{% endif %}{{ 'S' if c is sequence else '' }}\", "
        f"image_urls: [{URL}]}}\njobs: r.csv\n"
    )
    folder.write("r.csv", "a,c\none,\ntwo,red\n")
    assert [job.inputs["prompt"] for job in folder.jobs()] == ["one", "two in redS"]
    yaml(
        f"inputs: {{prompt: '{{{{ a }}}}{{% if row is defined %}} R={{{{ row }}}}{{% endif %}}', image_urls: [{URL}]}}\njobs: r.jsonl\n"
    )
    folder.write("r.jsonl", json.dumps({"a": "one", "row": 7}) + "\n" + json.dumps({"a": "two"}) + "\n")
    assert [job.inputs["prompt"] for job in folder.jobs()] == ["one R=7", "two"]


def test_a_pattern_never_goes_into_a_run_directory(folder: Folder, yaml: Yaml) -> None:
    folder.photo("a.jpg").photo("sub/b.jpg").photo("runs/x/files/c.png").write("runs/x/ledger.sqlite", b"")
    folder.photo("sub/deep/out/files/d.png").write("sub/deep/out/ledger.sqlite", b"")
    yaml(OF_PHOTOS + "jobs: {glob: '**'}\n")
    assert [job.sources for job in folder.jobs()] == [("a.jpg",), ("sub/b.jpg",)]
    yaml(OF_PHOTOS + "jobs: {glob: 'runs/x/files/*'}\n")
    assert len(folder.jobs()) == 1, "named as such, it is meant"


def test_a_title_is_carried_down_only_within_its_product(folder: Folder) -> None:
    gaps = "sku,title,photo\nA1,Mug,a.jpg\nA2,,b.jpg\n"
    assert survey_table(folder.write("g.csv", gaps).path / "g.csv").fill_down == []
    crossing = f"Handle,Title,Image Src\nmug,Mug,{URL}\nmug,,{URL}?2\nbowl,,{URL}?3\n"
    assert survey_table(folder.write("c.csv", crossing).path / "c.csv").fill_down == []


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("id,link,image_link\n1,https://shop.invalid/p/mug,https://cdn.invalid/mug.jpg\n", "image_link"),
        ("id,Product URL,Image Link\n1,https://shop.invalid/p/mug,https://cdn.invalid/i?id=7\n", "Image Link"),
        ("id,link\n1,https://shop.invalid/p/mug\n", None),
        ("id,where\n1,photos/mug.jpg\n", "where"),
        ("id,src\n1,https://cdn.invalid/x\n", "src"),
        ("id,where\n1,https://cdn.invalid/x.jpg?v=1\n", "where"),
    ],
)
def test_a_page_is_not_taken_for_a_picture(folder: Folder, table: str, column: str | None) -> None:
    assert survey_table(folder.write("t.csv", table).path / "t.csv").image == column


def test_a_survey_reads_what_excel_saves_and_leaves_bad_rows_out(folder: Folder) -> None:
    folder.write("u.csv", "sku\ttitle\tphoto\nA\tTasse groß\ta.jpg\n".encode("utf-16"))
    table = survey_table(folder.path / "u.csv")
    assert (table.form.encoding, table.title, table.image) == ("utf-16", "title", "photo")
    folder.write("b.csv", "sku,title,photo\nA,x,a.jpg\nB,y,b.jpg,surplus\n")
    table = survey_table(folder.path / "b.csv")
    assert (table.unreadable, table.without_image) == (1, False)


@pytest.mark.parametrize("cell", [f"{URL}, {URL}?2", f"{URL} {URL}", f"{URL};{URL}"])
def test_several_urls_in_one_text_are_a_fault(yaml: Yaml, cell: str) -> None:
    assert "is several URLs in one text" in yaml(f"inputs: {{prompt: a, image_urls: ['{cell}']}}\n").faults()[0]


def test_a_photo_whose_name_is_no_text_is_a_fault_of_its_own(folder: Folder, yaml: Yaml) -> None:
    folder.photo("p/ok.jpg")
    (folder.path / "p" / os.fsdecode(b"b\xe9b.jpg")).write_bytes((folder.path / "p/ok.jpg").read_bytes())
    yaml(OF_PHOTOS + "jobs: {glob: p/}\n")
    assert "has bytes that are not UTF-8 in its name" in folder.faults()[0]
    rejected: list[str] = []
    jobs = folder.jobs(options=Options(skip_invalid=True), reject=lambda _row, _header, why: rejected.append(why))
    assert len(jobs) == len(rejected) == 1


def test_stray_bytes_between_segments_are_no_damage(folder: Folder) -> None:
    whole = jpeg()
    (folder.path / "a.jpg").write_bytes(whole[:20] + b"\x00\x01" + whole[20:])
    with Image.open(folder.path / "a.jpg") as opened:
        opened.load()
    assert ImageFactsCache().at(folder.path / "a.jpg").format == "JPEG"
