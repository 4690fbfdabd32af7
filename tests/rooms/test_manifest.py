"""A manifest becomes jobs, or every fault it has, each where it stands."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import rfc8785
from PIL import Image

from batcher.catalog import read_entry
from batcher.errors import ManifestFaulty, NotFound, WrongUse
from batcher.hosting.inline import ImageFactsCache
from batcher.manifest.expand import Expansion, Options
from batcher.manifest.manifest import open_manifest
from tests.rooms.conftest import MODEL, Folder

Yaml = Callable[[str], Folder]
URL = "https://i.invalid/1.png"
ROWS = "inputs: {prompt: 'Put the {{ title }} on {{ scene }}', image_urls: ['{{ photo }}']}\n"


def test_rows_times_matrix_times_repeat(yaml: Yaml) -> None:
    folder = yaml(
        ROWS
        + "jobs:\n  - {title: mug, photo: 'https://i.invalid/1.png'}\n  - {title: vase, photo: 'https://i.invalid/2.png'}\n"
        + "matrix: {scene: [slate, oak], aspect_ratio: [1:1, 4:5]}\nrepeat: 2\n"
        + "output: {name: '{{ title }}/{{ scene | slug }}-{{ aspect_ratio | slug }}'}\n"
    )
    jobs = folder.jobs()
    assert len(jobs) == len({job.id for job in jobs}) == len({job.name for job in jobs}) == 16
    assert jobs[0].name == "mug/slate-1-1"
    assert jobs[1].name == "mug/slate-1-1~2"
    assert jobs[0].inputs == {"prompt": "Put the mug on slate", "image_urls": [URL], "aspect_ratio": "1:1"}
    assert jobs[0].vars == {"title": "mug", "photo": URL, "scene": "slate"}
    assert (jobs[-1].row, jobs[-1].sample, folder.expansion_counts.equal_rows) == (2, 2, 0)


def test_the_job_id_is_the_digest_of_what_is_asked_for(yaml: Yaml) -> None:
    folder = yaml(f"inputs: {{prompt: é, image_urls: [{URL}], num_images: 2}}\n")
    wanted = {"inputs": {"prompt": "é", "image_urls": [URL], "num_images": 2}, "model": MODEL, "sample": 1}
    assert folder.jobs()[0].id == hashlib.sha256(rfc8785.dumps(wanted)).hexdigest()[:16]  # type: ignore[arg-type]


def test_a_local_image_counts_by_its_content_and_max_side(yaml: Yaml) -> None:
    folder = yaml("inputs: {prompt: a, image_urls: [a.jpg]}\n").photo("a.jpg")
    (plain,) = folder.jobs()
    digest = hashlib.sha256((folder.path / "a.jpg").read_bytes()).hexdigest()
    assert plain.inputs["image_urls"] == [f"sha256:{digest}"]
    (folder.path / "a.jpg").rename(folder.path / "b.jpg")
    yaml("inputs: {prompt: a, image_urls: [b.jpg]}\n")
    assert folder.jobs()[0].id == plain.id
    yaml("inputs: {prompt: a, image_urls: [b.jpg]}\nimages: {max_side: 128}\n")
    assert folder.jobs()[0].id != plain.id


def test_signed_urls_make_the_same_job_where_queries_are_ignored(yaml: Yaml) -> None:
    ids = [
        yaml(f"inputs: {{prompt: a, image_urls: ['{URL}?sig={sig}']}}\nid_ignores: query\n").jobs()[0].id
        for sig in "ab"
    ]
    assert ids[0] == ids[1]
    assert yaml(f"inputs: {{prompt: a, image_urls: ['{URL}?sig=a']}}\n").jobs()[0].id != ids[0]


def test_a_row_equal_to_an_earlier_one_makes_the_next_sample(yaml: Yaml) -> None:
    folder = yaml(f"inputs: {{image_urls: [{URL}]}}\njobs: [{{prompt: a}}, {{prompt: b}}, {{prompt: a}}]\nrepeat: 2\n")
    assert [(job.inputs["prompt"], job.sample) for job in folder.jobs()] == [
        *(("a", 1), ("a", 2), ("b", 1), ("b", 2), ("a", 3), ("a", 4))
    ]
    assert folder.expansion_counts.equal_rows == 1


def test_the_later_wins_inputs_row_matrix_set(yaml: Yaml) -> None:
    folder = yaml(
        f"inputs: {{prompt: p, image_urls: [{URL}], resolution: 1K, output_format: png}}\n"
        "jobs: [{resolution: 2K, output_format: jpeg}]\nmatrix: {output_format: [webp]}\n"
    )
    assert folder.jobs()[0].inputs["resolution"] == "2K"
    assert folder.jobs()[0].inputs["output_format"] == "webp"
    (job,) = folder.jobs(options=Options({"output_format": "png", "num_images": "3"}))
    assert (job.inputs["output_format"], job.inputs["num_images"]) == ("png", 3)
    assert job.estimated_usd == pytest.approx(0.45)


def test_prices_of_the_manifest_win_and_count_images(yaml: Yaml) -> None:
    text = f"inputs: {{prompt: p, image_urls: [{URL}], resolution: 4K, num_images: 2}}\nprices: {{4K: 0.2}}\n"
    assert yaml(text).jobs()[0].estimated_usd == pytest.approx(0.4)


def test_csv_in_every_dress_gives_the_same_rows(folder: Folder) -> None:
    plain = 'prompt,image_urls,num_images,title\n"a\nb, é 杯",https://i.invalid/1.png|https://i.invalid/2.png,2,\n'
    folder.write("plain.csv", plain)
    folder.write("bom.csv", b"\xef\xbb\xbf" + plain.encode())
    folder.write("crlf.csv", plain.replace("\n", "\r\n").replace("a\r\nb", "a\nb"))
    folder.write("semicolon.csv", plain.replace(",", ";").replace("b; é", "b, é"))
    folder.write("tab.tsv", plain.replace(",", "\t").replace("b\t é", "b, é"))
    folder.write(
        "array.csv", plain.replace(f"{URL}|https://i.invalid/2.png", f'"[""{URL}"", ""https://i.invalid/2.png""]"')
    )
    expected = {"prompt": "a\nb, é 杯", "image_urls": [URL, "https://i.invalid/2.png"], "num_images": 2}
    for name in ("plain.csv", "bom.csv", "crlf.csv", "semicolon.csv", "tab.tsv", "array.csv"):
        (job,) = folder.jobs(name)
        assert job.inputs == expected, name
        assert job.vars == {}, "an empty cell is not given"
    folder.write("m.yaml", f"model: {MODEL}\njobs: {{file: latin.csv, encoding: cp1252, delimiter: ';'}}\n")
    folder.write("latin.csv", "prompt;image_urls\ncafé;https://i.invalid/1.png\n".encode("cp1252"))
    assert folder.jobs()[0].inputs["prompt"] == "café"


def test_columns_of_another_name_are_mapped(yaml: Yaml) -> None:
    folder = yaml(
        "inputs: {prompt: '{{ title }}'}\njobs: {file: p.csv, columns: {image_urls: Image Src, title: Title}}\n"
    )
    folder.write("p.csv", "Title,Image Src\nMug,https://i.invalid/1.png\n")
    (job,) = folder.jobs()
    assert (job.inputs["prompt"], job.inputs["image_urls"], job.rows_file) == ("Mug", [URL], "p.csv")
    folder.write("p.csv", "Title,Image\nMug,https://i.invalid/1.png\n")
    assert folder.faults()[0] == "p.csv:1: columns.image_urls: there is no column `Image Src`; did you mean `Image`?"


def test_jsonl_and_globs_give_rows(folder: Folder, yaml: Yaml) -> None:
    folder.write("r.jsonl", json.dumps({"prompt": "a", "image_urls": [URL], "num_images": 2, "tag": {"x": 1}}) + "\n\n")
    (job,) = folder.jobs("r.jsonl")
    assert (job.inputs["num_images"], job.vars) == (2, {"tag": {"x": 1}})
    yaml("inputs: {prompt: '{{ index }} {{ stem }}', image_urls: ['{{ path }}']}\njobs: {glob: 'p/*.jpg'}\n")
    folder.photo("p/b.jpg").photo("p/a.jpg")
    assert [job.inputs["prompt"] for job in folder.jobs()] == ["1 a", "2 b"]
    assert folder.jobs()[0].sources == ("p/a.jpg",)


def test_where_chooses_rows_by_an_expression(yaml: Yaml) -> None:
    folder = yaml(f"inputs: {{image_urls: [{URL}]}}\njobs: [{{prompt: a, n: 1}}, {{prompt: b, n: 2}}]\n")
    assert [job.inputs["prompt"] for job in folder.jobs(options=Options(where="n > 1"))] == ["b"]
    assert "undefined" in folder.faults(options=Options(where="m > 1"))[0]
    assert "--where:1: cannot be read as an expression" in folder.faults(options=Options(where="n >"))[0]


def test_bad_rows_are_set_aside_where_asked_for(folder: Folder) -> None:
    folder.write("r.csv", f"prompt,image_urls,num_images\na,{URL},1\nb,{URL},9\nc,nowhere.png,1\nd,{URL},2\n")
    reasons: list[str] = []
    jobs = folder.jobs("r.csv", Options(skip_invalid=True), lambda _row, _header, reason: reasons.append(reason))
    assert [job.inputs["prompt"] for job in jobs] == ["a", "d"]
    assert folder.expansion_counts.rejected == 2
    assert reasons[1] == "image_urls: nowhere.png does not exist"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("inptus: {prompt: a}", "m.yaml:2: inptus: is not a key of a manifest; did you mean `inputs`?"),
        ("limits: {concurency: 3}", "m.yaml:2: limits.concurency: is not a key of a manifest; did you mean `concurrency`?"),
        ("limits:\n  concurrency: 0", "m.yaml:3: limits.concurrency: is 0: input should be greater than or equal to 1"),
        ("retry: {job_timeout: soon}", "m.yaml:2: retry.job_timeout: is not a duration: write 90s, 30m or 1h30m"),
        ("inputs: {promt: a}", f"m.yaml:2: inputs.promt: is not an input of {MODEL}; did you mean `prompt`?"),
        ("inputs: {prompt: '{{ a', image_urls: [b]}", "m.yaml:2: inputs.prompt: cannot be read as a template:"),
        ("inputs: {prompt: '{{ nix }}', image_urls: [b]}", "m.yaml:2: inputs.prompt: asks for `nix`, which is not a variable and not in the matrix"),
        ("jobs: gone.csv", "m.yaml:2: jobs: gone.csv does not exist in FOLDER"),
        ("jobs: list.pdf", "m.yaml:2: jobs: list.pdf is not a CSV or JSONL file"),
        ("jobs: {glob: '*.tif'}", "m.yaml:2: jobs.glob: *.tif matches no file in FOLDER"),
        ("jobs: []", "m.yaml:1: jobs: names no job"),
        ("jobs: [1]", "m.yaml:2: jobs: item 1 is not a mapping of names to values"),
        ("name: a\nname: b", "m.yaml:3: name: stands twice in the same mapping"),
        ("inputs: {prompt: a}\n x: [", "m.yaml:3: cannot be read as YAML:"),
        ("inputs: !!python/object:os.system {}", "m.yaml:2: cannot be read as YAML:"),
        ("jobs: [{x: !!set {a, b}}]", "m.yaml:2: cannot be read as YAML: it has a `!!set`: write a list or a text"),
        ("jobs: [{x: !!binary aGVsbG8=}]", "m.yaml:2: cannot be read as YAML: it has `!!binary` bytes"),
        ("jobs: [{x: [!!timestamp 2026-01-01]}]", "m.yaml:2: cannot be read as YAML: it has a `!!timestamp`"),
        ("matrix: {scene: []}", "m.yaml:2: matrix.scene: is []:"),
        ("inputs: &a [*a]", "m.yaml:2: has an anchor that contains itself"),
        ("inputs: {prompt: a, image_urls: [x.jpg]}", "m.yaml:2: image_urls: x.jpg does not exist"),
        ("inputs: {prompt: a, image_urls: ['s3://b/x']}", "m.yaml:2: image_urls: `s3://b/x` is neither an https URL"),
        ("inputs: {prompt: a, image_urls: [m.yaml]}", "m.yaml:2: image_urls: m.yaml is not a JPEG, PNG or WebP that can be read"),
        (f"inputs: {{prompt: a, image_urls: [{URL}], resolution: 8K}}", 'm.yaml:2: resolution: is "8K"; the model takes 1K, 2K, 4K'),
        (f"inputs: {{prompt: a, image_urls: {[URL] * 21}}}", "m.yaml:2: image_urls: has 21 items, the model takes at most 20"),
        ("inputs: {image_urls: [a]}", "m.yaml:1: prompt: is missing, and the model requires it: it is not a variable"),
        (f"inputs: {{image_urls: [{URL}]}}", "m.yaml:1: prompt: is missing, and the model requires it"),
    ],
)  # fmt: skip
def test_a_fault_says_where_and_what_would_be_right(yaml: Yaml, text: str, fault: str) -> None:
    assert yaml(text).faults()[0].startswith(fault)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "r.csv:1: is empty"),
        ("prompt,image_urls\n".encode("utf-16"), "r.csv:1: is UTF-16 or binary"),
        (b"prompt,image_urls\n\xff,x\n", "r.csv:2: has bytes that are not UTF-8"),
        (b"prompt,prompt,image_urls\na,b,c\n", "r.csv:1: prompt: is the heading of two columns"),
        (b"prompt,image_urls\na,https://i.invalid/1.png,x\n", "r.csv:2: has 3 cells, the header has 2"),
        (b"prompt,image_urls,\na,https://i.invalid/1.png,x\n", "r.csv:2: has `x` in a column without a heading"),
        (b'prompt,image_urls\n"a,b\n', "r.csv:2: cannot be read as CSV from here on"),
        (b"prompt,image_urls\n" + b"x" * 300 + b"\0,b\n", "r.csv:2: has a NUL byte"),
        (b"prompt,image_urls\n", "r.csv:1: jobs: names no job"),
    ],
)
def test_a_fault_of_a_csv_file_is_named(folder: Folder, content: bytes, fault: str) -> None:
    assert folder.write("r.csv", content).faults("r.csv")[0].startswith(fault)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "r.jsonl:1: is not JSON: "),
        ("[1]", "r.jsonl:1: is not a JSON object"),
        ('{"prompt": NaN}', "r.jsonl:1: is not JSON: NaN is not a JSON value"),
        ('{"prompt": "a\\u0000"}', "r.jsonl:1: has a NUL byte"),
        ('{"prompt": "a\\ud83d"}', "r.jsonl:1: has half a character"),
        ("[" * 20_000, "r.jsonl:1: is not JSON: "),
    ],
)
def test_a_fault_of_a_jsonl_file_is_named(folder: Folder, line: str, fault: str) -> None:
    assert folder.write("r.jsonl", line + "\n").faults("r.jsonl")[0].startswith(fault)


def test_a_cell_of_ten_megabytes_is_read(folder: Folder) -> None:
    folder.write("r.csv", f"prompt,image_urls,note\na,{URL},{'x' * 10_000_000}\n")
    assert len(str(folder.jobs("r.csv")[0].vars["note"])) == 10_000_000


def test_all_faults_are_said_at_once_and_past_fifty_counted(folder: Folder) -> None:
    folder.write("r.csv", "prompt,image_urls\n" + '"a\nb",nowhere.png\n' * 60)
    faults = folder.faults("r.csv")
    assert (len(faults), folder.count) == (50, 60)
    assert faults[1].startswith("r.csv:4: image_urls: nowhere.png does not exist")


def test_a_row_whose_class_is_unknown_is_a_row_that_is_skipped_under_a_cap_too(folder: Folder) -> None:
    """It has no price either, which was taken for a fault of the manifest, and stopped the run."""
    folder.write("r.csv", f"prompt,image_urls,resolution\na,{URL},1K\nb,{URL},5K\n")
    reasons: list[str] = []
    text = f"model: {MODEL}\njobs: r.csv\nlimits: {{max_cost_usd: 5}}\n"
    jobs = folder.write("m.yaml", text).jobs(
        "m.yaml", Options(skip_invalid=True), lambda _row, _header, reason: reasons.append(reason), capped=True
    )
    assert len(jobs) == 1 and len(reasons) == 1 and "5K" in reasons[0] and "price" not in reasons[0]


def test_a_missing_column_is_one_fault_and_not_one_a_row(yaml: Yaml) -> None:
    folder = yaml("inputs: {prompt: 'a {{ titel }}', image_urls: ['{{ photo }}']}\njobs: r.csv\n")
    folder.write("r.csv", "title,photo\n" + f"a,{URL}\n" * 10)
    assert folder.faults() == [
        "m.yaml:2: inputs.prompt: asks for `titel`, which is not a column of r.csv and not in the matrix; did you mean `title`?"
    ]


def test_an_alias_bomb_is_a_named_fault(yaml: Yaml) -> None:
    bomb = "x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n" + "".join(
        f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    assert "its aliases multiply" in yaml(bomb).faults()[0]
    folder = yaml(f"inputs: &i {{prompt: a, image_urls: [{URL}]}}\njobs: [{{<<: *i, prompt: b}}]\n")
    assert folder.jobs()[0].inputs["prompt"] == "b"


def test_what_yaml_1_1_would_spoil_stays_a_text(yaml: Yaml) -> None:
    folder = yaml(f"inputs: {{prompt: '{{{{ sku }}}} {{{{ a }}}} {{{{ when }}}}', image_urls: [{URL}], aspect_ratio: 16:9}}\n"
                  "jobs: [{sku: 007, a: no, when: 2026-11-24}]\n")  # fmt: skip
    assert folder.jobs()[0].inputs == {"prompt": "007 no 2026-11-24", "image_urls": [URL], "aspect_ratio": "16:9"}


def test_equal_rows_are_told_apart_by_a_name_with_their_sample(yaml: Yaml) -> None:
    text = f"inputs: {{prompt: a, image_urls: [{URL}]}}\njobs: [{{}}, {{}}]\noutput: {{name: 'a-{{{{ sample }}}}'}}\n"
    assert [job.name for job in yaml(text).jobs()] == ["a-1", "a-2"]


def test_two_jobs_that_could_make_one_file_are_a_fault(yaml: Yaml) -> None:
    text = (
        f"inputs: {{image_urls: [{URL}]}}\njobs: [{{prompt: A}}, {{prompt: a}}]\noutput: {{name: '{{{{ prompt }}}}'}}\n"
    )
    assert yaml(text).faults() == ["m.yaml:3: output.name: `a` is also a file of row 1; let the name tell them apart"]
    text = text.replace("A}", "x-2}").replace("{prompt: a}", "{prompt: x, num_images: 2}")
    assert "`x-2` is also a file of row 1" in yaml(text).faults()[0]


def test_a_rows_values_are_never_templates(yaml: Yaml) -> None:
    folder = yaml(f"inputs: {{prompt: 'a {{{{ x }}}}', image_urls: [{URL}]}}\njobs: [{{x: '{{{{ 7 * 7 }}}}'}}]\n")
    assert folder.jobs()[0].inputs["prompt"] == "a {{ 7 * 7 }}"


def test_a_template_cannot_reach_the_machine(yaml: Yaml) -> None:
    for text in ("{{ ''.__class__.__mro__ }}", "{{ range(9) }}", "{{ cycler('a') }}", "{{ x.__init__.__globals__ }}"):
        yaml(f'inputs: {{prompt: "{text}", image_urls: [{URL}]}}\njobs: [{{x: a}}]\n').faults()


def test_large_and_odd_images_are_faults_that_help(yaml: Yaml) -> None:
    folder = yaml("inputs: {prompt: a, image_urls: [big.png]}\n").photo("big.png", (1600, 1600))
    assert "set `images: {max_side: 4096}`" in folder.faults()[0]
    yaml("inputs: {prompt: a, image_urls: [big.png]}\nimages: {max_side: 4096}\n")
    assert len(folder.jobs()) == 1
    folder.photo("x.gif")
    assert (
        "is a GIF; local images are sent as JPEG, PNG or WebP"
        in yaml("inputs: {prompt: a, image_urls: [x.gif]}\n").faults()[0]
    )
    Image.new("L", (9000, 4000)).save(folder.path / "wide.jpg")
    assert "has 36 megapixels" in yaml("inputs: {prompt: a, image_urls: [wide.jpg]}\n").faults()[0]


def test_a_manifest_that_is_not_there_or_has_no_name(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_manifest(str(tmp_path / "gone.yaml"))
    with pytest.raises(NotFound):
        open_manifest(str(tmp_path))
    for content, suffix in ((b"model: x\n", ".yaml"), (b'{"prompt": 1}\n', ".jsonl"), (b"prompt\na\n", ".csv")):
        with pytest.raises(WrongUse):
            open_manifest("-", stdin=io.BytesIO(content))
        assert open_manifest("-", name="n", stdin=io.BytesIO(content)).path.suffix == suffix


def test_a_manifest_that_is_no_text(folder: Folder) -> None:
    assert folder.write("m.yaml", b"a: \xff\n").faults()[0].startswith("m.yaml:1: has bytes that are not UTF-8")
    assert folder.write("m.yaml", "model: x\n".encode("utf-16")).faults()[0].startswith("m.yaml:1: has bytes that")
    assert folder.write("m.yaml", b"model: x\nname: a\0\n").faults()[0].startswith("m.yaml:2: has a NUL byte")
    assert folder.write("m.yaml", "").faults()[0].startswith("m.yaml:1: is empty")
    assert folder.write("m.yaml", "- a\n").faults()[0].startswith("m.yaml:1: is not a mapping")
    assert folder.write("m.yaml", "[" * 5000).faults()[0].startswith("m.yaml:1: ")


@pytest.mark.parametrize("jobs", ["{&glob : '*.png'}", "{? [a] : b}", "{glob: '**png'}", "{glob: ''}", "{1: 2}"])
def test_an_odd_source_of_rows_is_a_fault_and_no_bug(yaml: Yaml, jobs: str) -> None:
    assert yaml(f"jobs: {jobs}").faults()


def test_a_fault_of_the_manifest_is_said_once_and_where_it_stands(folder: Folder) -> None:
    text = """model: google/nano-banana/pro/edit
jobs: [{stem: a}, {stem: b}, {stem: c}]
inputs:
  prompt: "{{ stm }} in {{ scene }}"
  image_urls: [https://i.invalid/1.png]
  resolution: 8K
matrix: {scene: [x, y], aspect_ratio: ["4:5", "7:2"]}
output: {name: "{{ stem }}-{{ scen }}"}
"""
    faults = folder.write("m.yaml", text).faults()
    assert [fault.partition(", which")[0] for fault in faults] == [
        "m.yaml:4: inputs.prompt: asks for `stm`",
        "m.yaml:8: output.name: asks for `scen`",
        'm.yaml:6: resolution: is "8K"; the model takes 1K, 2K, 4K',
        'm.yaml:7: aspect_ratio: is "7:2"; the model takes auto, 21:9, 16:9, 3:2, 4:3, 5:4, 1:1, 4:5, 3:4, 2:3, 9:16',
    ]
    assert "did you mean `stem`?" in faults[0]
    faults = folder.write("m.yaml", text.replace("stm", "stem").replace("scen }}", "scene }}")).faults()
    assert [fault.partition(";")[0] for fault in faults] == [
        'm.yaml:6: resolution: is "8K"',
        'm.yaml:7: aspect_ratio: is "7:2"',
    ]


def test_every_fault_is_said_of_a_row_and_of_the_manifest_at_once(folder: Folder) -> None:
    text = """model: google/nano-banana/pro/edit
limits: {concurrencie: 5}
inputs:
  promt: a
  image_urls: ["{{ photo }}", "{{ other }}"]
jobs:
  - {photo: gone.png, other: away.png, resolution: 9K, output_format: bmp}
  - {photo: "https://i.invalid/1.png", other: "https://i.invalid/2.png", prompt: fine}
"""
    faults = folder.write("m.yaml", text).faults()
    assert [fault.partition(";")[0] for fault in faults] == [
        "m.yaml:2: limits.concurrencie: is not a key of a manifest",
        "m.yaml:4: inputs.promt: is not an input of google/nano-banana/pro/edit",
        "m.yaml:7: image_urls: gone.png does not exist",
        "m.yaml:7: image_urls: away.png does not exist",
        'm.yaml:7: resolution: is "9K"',
        'm.yaml:7: output_format: is "bmp"',
    ]
    assert "prompt" not in "".join(faults[2:]), "what the misspelt one may have been is not missed in every row"


def test_a_fault_of_a_late_combination_is_said_too(folder: Folder) -> None:
    numbers = ", ".join(map(str, range(300)))
    text = f"model: {MODEL}\ninputs: {{prompt: '{{{{ n }}}}', image_urls: [{URL}]}}\nmatrix: {{n: [{numbers}], resolution: [1K]}}\n"
    (fault,) = folder.write("m.yaml", text.replace("{{ n }}", "{{ 1 / (299 - n) }}")).faults()
    assert "prompt: " in fault and "zero" in fault


def test_one_column_can_stand_for_two_names(folder: Folder) -> None:
    text = (
        f"model: {MODEL}\njobs: {{file: a.csv, columns: {{resolution: Size, size: Size}}}}\n"
        f"inputs: {{prompt: '{{{{ size }}}}', image_urls: [{URL}]}}\n"
    )
    (job,) = folder.write("a.csv", "Size\n4K\n").write("m.yaml", text).jobs()
    assert (job.inputs["resolution"], job.inputs["prompt"], job.vars) == ("4K", "4K", {"size": "4K"})


def test_a_heading_that_is_not_there_is_said_once(folder: Folder) -> None:
    text = (
        f"model: {MODEL}\njobs: {{file: a.csv, columns: {{t: Titel}}}}\n"
        f"inputs: {{prompt: '{{{{ t }}}}', image_urls: [{URL}]}}\n"
    )
    faults = folder.write("a.csv", "Title\nx\ny\nz\n").write("m.yaml", text).faults()
    assert len(faults) == 2 and "columns.t" in faults[0] and "asks for `t`" in faults[1]


@pytest.mark.parametrize(
    ("settings", "row", "said"),
    [
        ("id_ignores: query\n", "{prompt: a, image_urls: ['https://[x/a.png?y']}", "is not a URL"),
        ("", '{prompt: a, image_urls: ["a\\0b"]}', "NUL"),
        ("", '{prompt: "a\\0b"}', "NUL"),
        ("", "5", "item 1"),
    ],
)
def test_what_no_request_can_hold_is_a_fault_and_no_bug(folder: Folder, settings: str, row: str, said: str) -> None:
    text = f"model: {MODEL}\ninputs: {{image_urls: [{URL}]}}\n{settings}jobs: [{row}]\n"
    folder.write("m.yaml", text)
    assert said in "".join(folder.faults())


def test_a_number_that_has_no_exact_form_is_a_fault_of_its_row(folder: Folder) -> None:
    """A catalogue's model may take a seed of any size; a job's id cannot."""
    schema = {"type": "object", "properties": {"prompt": {"type": "string"}, "seed": {"type": "integer"}}}
    model = read_entry({"model_id": "a/model", "input_schema": schema})
    folder.write("m.csv", "prompt,seed\na,9007199254740991\nb,9007199254740993\n")
    expansion = Expansion(open_manifest(str(folder.path / "m.csv")), model, ImageFactsCache(), Options())
    with pytest.raises(ManifestFaulty) as caught:
        list(expansion)
    (fault,) = caught.value.faults
    assert (fault.line, fault.field) == (3, "seed") and "safe" in fault.message


def test_a_row_that_is_rejected_takes_no_name_and_is_no_sample(folder: Folder) -> None:
    text = (
        f"model: {MODEL}\njobs: a.csv\nmatrix: {{n: [1, 2]}}\n"
        f"inputs: {{prompt: '{{{{ p }}}} {{{{ 1 / (n - m | int) }}}}', image_urls: [{URL}]}}\n"
        "output: {name: '{{ sku }}-{{ n }}'}\n"
    )
    folder.write("a.csv", "sku,p,m\nA,q,0\nB,r,2\nB,r,3\n").write("m.yaml", text)
    rejected: list[int] = []
    jobs = folder.jobs("m.yaml", Options(skip_invalid=True), lambda row, _header, _why: rejected.append(row.number))
    assert rejected == [2], (
        "its second combination divides by nothing; its first has the name, not the inputs, of row 3"
    )
    assert [(job.row, job.name) for job in jobs] == [(1, "A-1"), (1, "A-2"), (3, "B-1"), (3, "B-2")]
    assert {job.sample for job in jobs} == {1}
    assert folder.expansion_counts.estimated_usd == pytest.approx(4 * 0.15)


def test_where_asks_only_rows_that_can_tell_and_is_never_a_rows_fault(folder: Folder) -> None:
    folder.write("m.csv", f"prompt,image_urls,t\na,{URL},3\nb,{URL},\nc,{URL},4\n")
    rejected: list[str] = []
    options = Options(where="t == '3'", skip_invalid=True)
    assert [job.row for job in folder.jobs("m.csv", options, lambda *_: rejected.append(""))] == [1]
    assert rejected == []
    faults = folder.faults("m.csv", Options(where="tt == '3'", skip_invalid=True))
    assert faults == ["--where:1: " + faults[0].removeprefix("--where:1: ")] and "tt" in faults[0]


def test_what_is_wrong_with_the_settings_rejects_no_row(folder: Folder) -> None:
    text = f"model: {MODEL}\ninputs: {{prompt: a, image_urls: [{URL}], resolution: 8K}}\njobs: [{{}}, {{}}]\n"
    (fault,) = folder.write("m.yaml", text).faults("m.yaml", Options(skip_invalid=True))
    assert fault.startswith('m.yaml:2: resolution: is "8K"')


def test_inputs_are_judged_where_rows_cannot_be_read(folder: Folder) -> None:
    text = f"""model: {MODEL}
prices: {{1K: abc}}
jobs: gone.csv
inputs: {{promt: x, resolution: 8K, prompt: '{{{{ titel }}'}}
matrix: {{aspect_ratio: ["9:99", "1:1"]}}
"""
    faults = folder.write("m.yaml", text).faults()
    for part in ("prices.1K", "gone.csv does not exist", "inputs.promt", "inputs.prompt", '"8K"', '"9:99"'):
        assert part in "\n".join(faults)
    assert len(faults) == 6


def test_faults_of_one_row_are_counted_beyond_those_shown(folder: Folder) -> None:
    ratios = ", ".join(f"'{n}:99'" for n in range(80))
    text = f"model: {MODEL}\ninputs: {{prompt: a, image_urls: [{URL}]}}\nmatrix: {{aspect_ratio: [{ratios}]}}\n"
    assert len(folder.write("m.yaml", text).faults()) == 50
    assert folder.count == 80


def test_nothing_in_a_matrix_is_not_given(yaml: Yaml) -> None:
    jobs = yaml(f"inputs: {{prompt: a, image_urls: [{URL}]}}\nmatrix: {{resolution: [~, 2K]}}\n").jobs()
    assert [job.inputs.get("resolution") for job in jobs] == [None, "2K"]


def test_a_setting_that_is_wrong_does_not_hide_a_file_that_is_missing(folder: Folder) -> None:
    for wrong in ("nme", "inptus"):
        faults = folder.write("m.yaml", f"model: google/nano-banana/pro/edit\n{wrong}: x\njobs: gone.csv\n").faults()
        assert [fault.partition(";")[0] for fault in faults] == [
            f"m.yaml:2: {wrong}: is not a key of a manifest",
            "m.yaml:3: jobs: gone.csv does not exist in FOLDER",
        ]


def test_a_rejected_row_has_every_reason(folder: Folder) -> None:
    rows = "prompt,image_urls,resolution,output_format\na,https://i.invalid/1.png,9K,bmp\nb,https://i.invalid/1.png,1K,png\n"
    reasons: list[str] = []
    folder.write("m.csv", rows).jobs(
        "m.csv", Options(skip_invalid=True), lambda _row, _header, why: reasons.append(why)
    )
    assert [reason.count(": is ") for reason in reasons] == [2]


@pytest.mark.parametrize("names", [("a", "a.png/b"), ("a.PNG/b", "a"), ("x/a", "x/a.json/b/c")])
def test_a_folder_where_a_file_could_be_is_a_fault(yaml: Yaml, names: tuple[str, str]) -> None:
    jobs = ", ".join(f"{{prompt: {n}, file: {name!r}}}" for n, name in enumerate(names))
    text = f"inputs: {{image_urls: [{URL}]}}\njobs: [{jobs}]\noutput: {{name: '{{{{ file }}}}'}}\n"
    (fault,) = yaml(text).faults()
    assert "output.name" in fault and "folder" in fault
    assert len(yaml(text.replace("png/b", "txt/b").replace("json/b", "txt/b").replace("PNG/b", "txt/b")).jobs()) == 2


def test_a_column_that_becomes_another_ones_name_is_a_fault(folder: Folder) -> None:
    text = f"model: {MODEL}\njobs: {{file: a.csv, columns: {{prompt: Title}}}}\ninputs: {{image_urls: [{URL}]}}\n"
    faults = folder.write("a.csv", "prompt,Title\na,b\n").write("m.yaml", text).faults()
    assert faults[0] == "a.csv:1: columns.prompt: is the heading of a column, and stands for `Title` too: rename one"


def test_columns_that_are_named_as_what_templates_see_stay_in_the_sidecar(folder: Folder) -> None:
    rows = "prompt,image_urls,index,sample\na,https://i.invalid/1.png,17,left\n"
    assert folder.write("m.csv", rows).jobs("m.csv")[0].vars == {"index": "17", "sample": "left"}
