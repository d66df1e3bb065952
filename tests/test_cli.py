"""Code that all commands share: values, display, and exit codes."""

import argparse
import os
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.text import Text

from hrvit_lab import cli
from hrvit_lab.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent


# -- values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (cli.size, "224", (224, 224)),
        (cli.size, "512x1024", (512, 1024)),
        (cli.size, "512×1024", (512, 1024)),
        (cli.size, "65536", (65536, 65536)),
        (cli.whole(1, 8), "8", 8),
        (cli.seed, "4294967295", 2**32 - 1),
        (cli.seed, "0", 0),
        (cli.threads, "1", 1),
        (cli.number(0, 60), "0.5", 0.5),
        (cli.number(0, 60), "6e1", 60.0),
        (cli.dtype, "bf16", "bfloat16"),
        (cli.dtype, "FP32", "float32"),
        (cli.dtype, "float16", "float16"),
        (cli.device, "cuda:1", "cuda:1"),
        (cli.device, "mps", "mps"),
        (cli.path, "a b", Path("a b")),
        (cli.path, "~/x", Path.home() / "x"),
        (cli.one_of(("eager", "compile"), "back end"), "eager", "eager"),
        (cli.listed(cli.seed), "3, 1,3", [3, 1]),
        (cli.listed(cli.size), "224,64x32", [(224, 224), (64, 32)]),
    ],
)
def test_a_valid_value_is_parsed(parse: Callable[[str], object], text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "remedy"),
    [
        (cli.size, "0", "1 to 65536"),
        (cli.size, "65537", "1 to 65536"),
        (cli.size, "1x2x3", "height x width"),
        (cli.size, "-4", "height x width"),
        (cli.size, "²", "height x width"),  # str.isdecimal() and int() differ on such digits
        (cli.size, "٣", "height x width"),
        (cli.size, "9" * 5000, "height x width"),  # more digits than int() reads
        (cli.size, "", "height x width"),
        (cli.whole(1, 8), "9", "from 1 to 8"),
        (cli.whole(1, 8), "1.0", "from 1 to 8"),
        (cli.whole(1, 8), "1_0", "from 1 to 8"),
        (cli.seed, "4294967296", "from 0 to 4294967295"),
        (cli.seed, "-1", "from 0"),
        (cli.threads, "100000", f"this machine's {os.cpu_count()} cores"),
        (cli.threads, "0", "from 1 to"),
        (cli.threads, str(4 * (os.cpu_count() or 1) + 1), "give 1 to"),
        (cli.number(0, 60), "nan", "above 0 and at most 60"),
        (cli.number(0, 60), "inf", "above 0 and at most 60"),
        (cli.number(0, 60), "0", "above 0 and at most 60"),
        (cli.number(0, 60), "soon", "above 0 and at most 60"),
        (cli.dtype, "float8", "'float16'"),
        (cli.device, "gpu", "use cpu, cuda, cuda:N or mps"),
        (cli.device, "cuda:-1", "use cpu, cuda, cuda:N or mps"),
        (cli.path, " ", "give a file or folder"),
        (cli.path, "~no_such_user/x", "give the full path"),
        (cli.one_of(("eager", "compile"), "back end"), "eagre", "unknown back end 'eagre'; did you mean 'eager'?"),
        (cli.listed(cli.seed), "", "empty entry"),
        (cli.listed(cli.seed), "1,,2", "empty entry"),
        (cli.listed(cli.seed), "1,x", "from 0"),
    ],
)
def test_an_impossible_value_is_refused_with_a_remedy(parse: Callable[[str], object], text: str, remedy: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        parse(text)
    assert remedy in str(refused.value) and "\n" not in str(refused.value)


def test_a_parser_refuses_in_one_sentence() -> None:
    parser = cli.Parser("hrvit-lab cost", "what it costs")
    parser.add_argument("--resolution", type=cli.size)
    with pytest.raises(ConfigError, match=r"^--resolution: 'a' is not a size; .*; see hrvit-lab cost --help$"):
        parser.parse_args(["--resolution", "a"])
    with pytest.raises(ConfigError, match="unrecognized arguments: --res"):  # no abbreviations
        parser.parse_args(["--res", "64"])
    with pytest.raises(
        ConfigError, match=r"^unrecognized arguments: --resolutoin=64; did you mean --resolution\?; see"
    ):
        parser.parse_args(["--resolutoin=64"])
    with pytest.raises(ConfigError, match=r"^unrecognized arguments: --zebra; see hrvit-lab cost --help$"):
        parser.parse_args(["--zebra"])


# -- display -------------------------------------------------------------------------------------------------


def test_printable_escapes_all_control_characters() -> None:
    """The reference is Unicode's own table: categories of control characters, surrogates and separators, and bidi
    classes."""
    everything = [chr(code) for code in range(0x110000)]
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    marks = {"\u200e", "\u200f", "\u061c"}  # classes L, R and AL, of which most are letters
    obeyed = {
        character
        for character in everything
        if character != "\n"
        and (
            unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
            or unicodedata.bidirectional(character) in turning
            or character in marks
        )
    }
    assert {character for character in everything if cli.printable(character) != character} == obeyed
    assert cli.printable("a\x1b[2Jb\u202ec\r") == r"a\x1b[2Jb\u202ec\r"


def test_the_console_prints_untrusted_text_literally(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a[/red]b [bold]c :smile: \x1b[31md\u202e"
    console = cli.console()
    console.print(hostile)
    console.print(Text(hostile), style="red")
    table = cli.table(hostile)
    table.add_column(hostile)
    table.add_row(hostile)
    console.print(table)
    shown = capsys.readouterr().out
    assert shown.count(r"a[/red]b [bold]c :smile: \x1b[31md\u202e") == 5
    assert "\x1b" not in shown and "\u202e" not in shown


def test_our_own_colours_are_sent_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    cli.console(force_terminal=True, color_system="standard").print("x\x1b[0m", style="red")
    assert capsys.readouterr().out == "\x1b[31mx\\x1b[0m\x1b[0m\n"


@pytest.mark.parametrize(("columns", "width"), [(None, 120), ("80", 80), ("wide", 120), ("0", 20)])
def test_in_a_pipe_the_variable_columns_sets_the_width_of_the_console(
    monkeypatch: pytest.MonkeyPatch, columns: str | None, width: int
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert cli.console().width == width


SENTENCES = "Costs of 1,000 networks: /a/long/path/of/folders/that/is/wider/than/the/terminal; try again later."


def test_in_a_terminal_lines_break_between_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    cli.console(force_terminal=True, width=40).print(SENTENCES, soft_wrap=True)
    cli.console(force_terminal=True, width=40, soft_wrap=True).print(SENTENCES)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    cli.complain(SENTENCES)
    monkeypatch.undo()
    cli.console().print(SENTENCES, soft_wrap=True)
    cli.complain(SENTENCES)
    out, errors = capsys.readouterr()
    for shown in (out, errors):
        lines = [line.rstrip() for line in shown.splitlines()]
        assert lines.pop() == SENTENCES  # in a file
        assert {line for line in lines if len(line) > 40} == {SENTENCES.split()[4]}
        assert " ".join(lines) in (SENTENCES, f"{SENTENCES} {SENTENCES}")


def test_numbers_are_formatted_for_people() -> None:
    assert [cli.rough_duration(seconds) for seconds in (0, 89, 91, 1392, 7530)] == [
        "0 s", "89 s", "2 min", "23 min", "2 h 6 min",
    ]  # fmt: skip
    assert [cli.duration(seconds) for seconds in (0, 9.96, 59.6, 3599.7, 7170)] == [
        "0.0 s", "10 s", "1 min 0 s", "1 h 0 min", "2 h 0 min",
    ]  # fmt: skip
    assert (cli.si(243_000, 3), cli.si(999_999)) == ("243\xa0k", "1.000\xa0M")
    assert [cli.big(number) for number in (0, 243_000, 999_999_999)] == ["0", "243,000", "999,999,999"]
    assert [cli.big(number) for number in (10**9, 144 * 10**18, 6 * 10**330 - 1)] == [
        "1.0\xa0·\xa010⁹", "1.4\xa0·\xa010²⁰", "6.0\xa0·\xa010³³⁰",
    ]  # fmt: skip
    assert (cli.si(999_999, 3), cli.si(12), cli.mib(2**30)) == ("1.00\xa0M", "12", "1024.0\xa0MiB")


# -- how a command ends --------------------------------------------------------------------------------------


def program(code: str) -> str:
    """One line of Python that runs in ``cli.run``."""
    return f"import sys, os\nfrom hrvit_lab import cli\ndef work():\n    {code}\nsys.exit(cli.run(work))"


def start(code: str, *, shell: str = "{}") -> subprocess.Popen[str]:
    """Run one line of Python as a command in a separate process; ``shell`` is the shell command that starts it."""
    command = shell.format(f"exec '{sys.executable}' -c '{program(code)}'")
    return subprocess.Popen(
        ["bash", "-c", command], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=250)
    return process.returncode, output, errors


def test_a_command_exits_with_its_own_code() -> None:
    assert ended(start('print("fine"); return 1')) == (1, "fine\n", "")


def test_user_errors_are_reported_in_one_sentence_and_our_own_errors_tracebacks(tmp_path: Path) -> None:
    refused = 'from hrvit_lab.errors import ConfigError; raise ConfigError("x \\x1b[2J is wrong;\\nuse y")'
    assert ended(start(refused)) == (2, "", "error: x \\x1b[2J is wrong; use y\n")
    nowhere = tmp_path / "at" / "all"
    code, output, errors = ended(start(f'open("{nowhere}")'))
    assert (code, output) == (2, "")
    assert errors == f"error: {nowhere}: No such file or directory; check the path\n"
    code, _, errors = ended(start('raise ValueError("a bug")'))
    assert code == 1 and errors.startswith("Traceback") and "a bug" in errors


def test_ctrl_c_is_handled_while_modules_load(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(300)\n")
    process = start(f'sys.path.insert(0, "{tmp_path}"); import slow')
    assert process.stdout is not None and process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "", "interrupted\n")


def test_the_exit_code_is_130_if_an_exec_is_interrupted(tmp_path: Path) -> None:
    """sympy and dataclasses call exec while they are imported; CPython then loses the exit code of ``python -m``."""
    (tmp_path / "command.py").write_text(program("exec('raise KeyboardInterrupt')"))
    process = subprocess.Popen(
        [sys.executable, "-m", "command"], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
    )  # fmt: skip
    assert ended(process) == (130, "", "interrupted\n")


def test_a_closed_pipe_ends_the_command_without_a_message() -> None:
    long = 'c = cli.console(); [c.print("x" * 99) for _ in range(9999)]; return 0'
    for code in (long, 'print("x" * 999999); return 0', 'print("x"); return 0'):
        process = start(code, shell="set -o pipefail; ( {} ) | true")
        # 0: the command may end before its reader closes the pipe.
        assert ended(process)[::2] in ((141, ""), (0, "")), code
    assert ended(start(long, shell="set -o pipefail; ( {} ) | true"))[0] == 141


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
def test_output_to_a_closed_stream_is_discarded_and_not_written_to_a_file(tmp_path: Path, closed: str) -> None:
    file = tmp_path / "kept"
    code = (
        f'f = open("{file}", "w"); print("lost"); print("lost", file=sys.stderr); cli.console().print("lost"); '
        'os.system("echo lost"); f.write("mine"); return 3'
    )
    code_, _, errors = ended(start(code, shell="{} " + closed))
    assert (code_, file.read_text()) == (3, "mine") and "Traceback" not in errors


FULL = "error: standard output: No space left on device; redirect it to another file\n"
REFUSED = 'print("x"); from hrvit_lab.errors import ConfigError; raise ConfigError("y")'


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("code", "error"),
    [
        ('print("x" * 99999); return 0', FULL),
        ('print("x"); return 0', FULL),
        ('cli.console().print("x"); return 1', FULL),
        ('cli.Parser("p", "help").parse_args(["--help"])', FULL),
        ('p = cli.Parser("p", ""); p.add_argument("-v", action="version", version="1"); p.parse_args(["-v"])', FULL),
        (f'open("{ROOT}/no/file")', f"error: {ROOT}/no/file: No such file or directory; check the path\n"),
        (REFUSED, "error: y\n"),
    ],
)
def test_a_full_standard_output_is_reported_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, code: str, error: str, unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    expected = FULL if code == REFUSED and unbuffered else error  # the first error that is seen
    assert ended(start(code, shell="{} > /dev/full")) == (2, "", expected)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_standard_error_keeps_the_exit_code() -> None:
    assert ended(start(REFUSED, shell="{} 2> /dev/full")) == (2, "x\n", "")


@pytest.mark.parametrize("encoding", ["cp932", "ascii", "latin-1", "cp1252"])
def test_unencodable_characters_are_replaced(encoding: str) -> None:
    code = 'print("224×224 ★"); cli.console().print("± é 日"); cli.complain("Δ\\U0001f600"); return 0'
    process = subprocess.run(
        [sys.executable, "-c", program(code)],
        capture_output=True, timeout=250, env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    output = process.stdout.decode(encoding)
    assert "224" in output and process.stderr.decode(encoding).count("\n") == 1
    assert "?" in output and ("×" in output) == (encoding != "ascii")


def test_help_needs_no_rich_and_no_pydantic() -> None:
    code = "cli.Parser('hrvit-lab x', 'y').print_help(); print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", program(code)], capture_output=True, text=True, timeout=250,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "usage: hrvit-lab x" in done.stdout
    assert not {"rich", "pydantic", "torch", "timm", "numpy", "pandas"} & set(done.stdout.splitlines()[-1].split())


# -- Ctrl-C at any moment ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "module"),
    [("--help", "wrapt"), ("cost hrvit_nano", "yaml"), ("study --list", "rich"), ("train x", "torch"),
     ("latency x", "torch")],
)  # fmt: skip
def test_ctrl_c_while_a_command_loads_prints_one_word(command: str, module: str, tmp_path: Path) -> None:
    """Also if the module that is being imported turns the interrupt into another error."""
    (tmp_path / f"{module}.py").write_text(
        "import time\nprint('begun', flush=True)\ntry:\n    time.sleep(60)\n"
        "except BaseException:\n    raise ImportError('no such luck') from None\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "hrvit_lab", *command.split()],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "", "interrupted\n")


# -- help ------------------------------------------------------------------------------------------------------


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of every command."""
    from hrvit_lab import __main__ as root
    from hrvit_lab.app import __main__ as app
    from hrvit_lab.cost import __main__ as cost
    from hrvit_lab.data import __main__ as data
    from hrvit_lab.evaluate import __main__ as evaluate
    from hrvit_lab.export import __main__ as export
    from hrvit_lab.latency import __main__ as latency
    from hrvit_lab.latency import suite
    from hrvit_lab.study import __main__ as study
    from hrvit_lab.train import __main__ as train
    from hrvit_lab.train import flags, recipe_command

    found = (root, app, cost, data, evaluate, export, latency, suite, study, train, flags)
    about_recipes = map(recipe_command.parser, recipe_command.COMMANDS)
    about_data = map(data.parser, data.COMMANDS)
    others = (study.report_parser(), *about_recipes, *about_data)
    return {p.prog: p for p in (*(module.parser() for module in found), *others)}


@pytest.mark.parametrize("columns", [80, 120])
def test_help_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal would break longer lines within words."""
    monkeypatch.setenv("COLUMNS", str(columns))
    texts = {name: parser.format_help() for name, parser in parsers().items()}
    assert len(texts) == 18
    assert not {f"{name}: {line}" for name, text in texts.items() for line in text.splitlines() if len(line) > columns}


def test_help_explains_every_option_and_its_default() -> None:
    """The help of an option with a value names its default; required arguments and switches have no default."""
    options = [(name, action) for name, parser in parsers().items() for action in parser._actions]
    assert not [(name, action.dest) for name, action in options if not action.help]
    optional = [(name, action) for name, action in options if action.option_strings and not action.required]
    valued = [(name, action) for name, action in optional if action.nargs != 0 and action.metavar != "KEY=VALUE,…"]
    silent = [(name, action.dest) for name, action in valued if "(default: " not in str(action.help)]
    assert not [option for option in silent if option not in WITHOUT_DEFAULT]


WITHOUT_DEFAULT = {
    ("hrvit-lab cost", "set"), ("hrvit-lab latency", "json"), ("hrvit-lab latency", "out"), ("hrvit-lab train", "root"),
    ("hrvit-lab study", "again"),
}  # fmt: skip
"""Options that do nothing unless they are given."""
