"""Runs a page's blocks in order, as its reader would: in one folder, and Python in one namespace."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

from docs.docs_kit import RUNNABLE, Block
from reelstream.cli.main import main

_SHELL_SYNTAX = re.compile(r"[|&;<>$`()*]")


def run_blocks(blocks: list[Block]) -> None:
    """Run them in the current folder; blocks of files are written there.

    Raises:
        AssertionError: Where a command fails, with the block's place.
    """
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks:
        if block.file is not None:
            Path(block.file).write_text(block.code, encoding="utf-8")
        elif block.language not in RUNNABLE or block.excuse is not None:
            continue
        elif block.language == "python":
            # Line feeds in front, so that a traceback names the page's own lines.
            code = compile("\n" * (block.line - 1) + block.code, str(block.page), "exec")
            exec(code, namespace)
        else:
            for command in commands_of(block):
                _run_command(command, block)


def commands_of(block: Block) -> list[str]:
    """Return a shell block's commands, continued lines joined; of a console block those after `$ `, without output."""
    commands: list[str] = []
    continued = False
    for line in block.code.splitlines():
        if continued:
            commands[-1] += line.strip()
        elif block.language == "console":
            if not line.startswith("$ "):
                continue
            commands.append(line.removeprefix("$ "))
        elif line.strip() and not line.lstrip().startswith("#"):
            commands.append(line)
        else:
            continue
        continued = commands[-1].endswith("\\")
        commands[-1] = commands[-1].removesuffix("\\")
    return commands


def _run_command(command: str, block: Block) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "reelstream" and not _SHELL_SYNTAX.search(command):
        code = _run_reelstream(words[1:])
    else:
        code = subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=False).returncode
    assert code == 0, f"{block.place}: {command!r} left with {code}"


def _run_reelstream(words: list[str]) -> int:
    """Run the command in this process, since each new one would load torch again."""
    try:
        return main(words)
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1
