"""What README and docs/ say, compared with the code; the tour of docs/python.md, run."""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import environment

from dsage_spool import config, errors, layout
from dsage_spool.cli.main import EXIT_CODES, build_parser
from dsage_spool.spool.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
OPERATING = ROOT / "docs/operating.md"
LONGEST_README = 210
OURS = ("JOB", "ATTEMPT")  # variables that jobs find, and that are no settings
# They end the command as it were: what follows is the shell's, or what a job is to run.
ENDS = re.compile(r"\s(?:--(?:\s|$)|\||>|2>|&|#|;)")
LOGGED = ("._log", "notes.append", "._stick")  # the ends of calls that tell the log
MACHINE = re.compile(r"/(?:work|root|tmp|home|opt)/")

each_page = pytest.mark.parametrize("page", PAGES, ids=IDS)


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


# -- links -----------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """As code hosts make them of headings."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def broken(page: Path, text: str) -> list[str]:
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            found.append(target)
    return found


@each_page
def test_every_relative_link_leads_somewhere(page):
    assert not broken(page, text_of(page))


@each_page
def test_a_page_that_is_named_in_words_is_there(page):
    named = re.findall(r"`((?:docs|tests|examples|benchmarks)/[\w./-]+\.\w+)`", text_of(page))
    # The lead adds bench.py together with the figures it makes.
    assert [name for name in named if not (ROOT / name).exists()] in ([], ["benchmarks/bench.py"])


# -- commands --------------------------------------------------------------------------------------


def verbs() -> dict[str, argparse.ArgumentParser]:
    actions = build_parser()._subparsers._group_actions
    return dict(actions[0].choices)


VERBS = verbs()


def commands_in(text: str) -> list[str]:
    """What stands after `dsage-spool` in code: in blocks, and in spans, also over line ends."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.S)
    blocks += re.findall(r"^(?: {4,}.*\n)+", text, re.M)
    spans = re.findall(r"(?<!`)`([^`]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.S))
    lines = [line for block in blocks for line in block.splitlines()]
    lines += [" ".join(span.split()) for span in spans]
    starts = re.compile(r"(?:^|[\s/$])dsage-spool ((?:-|[a-z]).*)")
    return [found[1] for line in lines if (found := starts.search(line))]


def unknown_words(command: str) -> list[str]:
    """A verb, or options of it, that the parser does not have."""
    words = ENDS.split(command)[0].split()
    if words[0].startswith("-"):
        return [word for word in words if word not in build_parser()._option_string_actions]
    if words[0] not in VERBS:
        return words[:1]
    known = VERBS[words[0]]._option_string_actions
    return [w for w in words[1:] if re.fullmatch(r"--?[a-z][\w-]*", w) and w not in known]


@each_page
def test_every_command_that_is_mentioned_exists(page):
    wrong = {command: unknown_words(command) for command in commands_in(text_of(page))}
    assert not {command: words for command, words in wrong.items() if words}


@each_page
def test_every_long_option_in_a_table_or_sentence_exists(page):
    known = {o for parser in VERBS.values() for o in parser._option_string_actions}
    others = {"--user", "--retries", "--now", "--help"}  # of systemctl, parallel, and all of us
    options = re.findall(r"`(--[a-z][a-z-]+)", text_of(page))
    assert not set(options) - known - others


def test_a_command_that_does_not_exist_would_be_noticed():
    planted = "    dsage-spool frobnicate it\n\nand `dsage-spool submit\n--frob` too\n"
    wrong = [unknown_words(command) for command in commands_in(planted)]
    assert sorted(wrong) == [["--frob"], ["frobnicate"]]


def test_every_verb_is_mentioned_somewhere():
    mentioned = {command.split()[0] for page in PAGES for command in commands_in(text_of(page))}
    changes = text_of(ROOT / "CHANGELOG.md")
    assert not {verb for verb in VERBS if verb not in mentioned and f"`{verb}`" not in changes}


# -- settings --------------------------------------------------------------------------------------


def rows(page: Path, head: str) -> list[list[str]]:
    """The cells of the table whose first line begins with `head`."""
    table = text_of(page).split(f"\n{head}", 1)[1].split("\n\n", 1)[0]
    return [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_settings_in_the_table_are_those_of_the_code():
    table = rows(OPERATING, "| key |")
    assert [row[0].strip("`") for row in table] == list(config.KEYS)
    assert [row[1].strip("`") for row in table] == [f"DSAGE_SPOOL_{k.upper()}" for k in config.KEYS]


@each_page
def test_every_variable_that_is_mentioned_is_a_setting(page):
    mentioned = set(re.findall(r"DSAGE_SPOOL_([A-Z_]+)", text_of(page)))
    assert not mentioned - {key.upper() for key in config.KEYS} - set(OURS)


def test_the_fields_of_spool_json_in_the_table_are_those_of_the_code():
    fields = {row[0].strip("`"): row[2] for row in rows(OPERATING, "| field |")}
    assert set(fields) == {"format", *Settings.__dataclass_fields__}
    usual = Settings("12345678")
    assert fields["lease"] == f"{usual.lease:g}"
    for name in ("payload_limit", "result_limit"):
        assert fields[name] == f"{getattr(usual, name) >> 20} MiB"


# -- exit codes and log lines ----------------------------------------------------------------------


def error_classes() -> dict[str, int]:
    found = vars(errors).values()
    classes = [e for e in found if isinstance(e, type) and issubclass(e, Exception)]
    return {error.__name__: error.exit_status for error in classes}


def test_the_exit_codes_in_the_table_are_those_of_the_errors():
    table = rows(OPERATING, "| code |")
    assert {int(row[0]) for row in table} == {0, 130, *error_classes().values()}
    for code, _, names in table:
        for name in re.findall(r"`(\w+)`", names):
            assert error_classes()[name] == int(code), name


def test_the_exit_codes_of_help_are_in_the_table():
    told = set(map(int, re.findall(r"(?:^|\s{2,})(\d+)\s{1,4}[a-z]", EXIT_CODES, re.M)))
    assert told <= {int(row[0]) for row in rows(OPERATING, "| code |")}
    assert len(told) > 10


def log_lines(folder: str) -> list[list[str]]:
    """The constant pieces of each line that the modules of a folder may log."""
    paths = sorted((ROOT / "dsage_spool" / folder).glob("*.py"))
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    told = [call for call in calls if ast.unparse(call.func).endswith(LOGGED)]
    return [pieces for call in told for word in call.args if (pieces := _pieces(word))]


def _pieces(node: ast.expr) -> list[str]:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    values = [part.value for part in parts if isinstance(part, ast.Constant)]
    texts = [value.strip(" :;,") for value in values if isinstance(value, str)]
    return [text for text in texts if len(text) > 3]


@pytest.mark.parametrize("folder", ["server", "worker"])
def test_every_line_that_may_be_logged_is_explained(folder):
    told = " ".join(text_of(OPERATING).split())
    lines = log_lines(folder)
    missing = [piece for pieces in lines for piece in pieces if piece not in told]
    assert len(lines) > 3 and not missing


def test_every_folder_of_a_spool_has_its_paragraph():
    headings = " ".join(re.findall(r"^### (.*)$", text_of(OPERATING), re.M))
    assert not [folder for folder in layout.FOLDERS if f"{folder}/" not in headings]


# -- the pages themselves --------------------------------------------------------------------------


def test_the_readme_is_short():
    assert len(text_of(ROOT / "README.md").splitlines()) <= LONGEST_README


@each_page
def test_no_page_names_a_path_of_a_machine(page):
    assert not MACHINE.search(text_of(page))


# -- the tour --------------------------------------------------------------------------------------


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text_of(page), re.M | re.S)


def promised(script: str) -> list[str]:
    """What a `print` line says in its comment that it will print."""
    return re.findall(r"^\s*print\(.*\)\s+# (.*)$", script, re.M)


@each_page
def test_every_python_block_compiles(page):
    for block in python_blocks(page):
        compile(block, str(page), "exec")


def test_the_tour_of_the_python_page_runs_and_prints_what_it_says(world):
    tour = ROOT / "docs/python.md"
    script = "\n".join(python_blocks(tour))
    world.server()
    world.worker("desk")
    path = world.root / "tour.py"
    path.write_text(script)
    done = subprocess.run(
        [sys.executable, "-u", str(path)], env=environment(world), cwd=world.home("alice"),
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = iter(done.stdout.splitlines())
    assert [line for line in promised(script) if line not in said] == []
    assert len(promised(script)) >= 9


def test_the_proof_in_the_readme_is_the_last_one():
    from proof.table import inserted

    readme = text_of(ROOT / "README.md")
    assert inserted(readme, text_of(ROOT / "PROOF.json")) == readme
