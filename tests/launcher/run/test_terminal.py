"""The line of progress on terminals of any width."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from launcher.run.terminal import Terminal
from trainers.checkpoints.checkpoint import Progress

LOSSES = {
    f"{phase}/{name}_{side}": 0.123456
    for phase, name in (("D", "fake"), ("D", "real"), ("G", "cycle"), ("G", "gan"), ("G", "idt"))
    for side in "AB"
}


@pytest.mark.parametrize("width", [60, 80, 300])
def test_a_line_fits_and_has_its_time_to_go(width: int) -> None:
    words = io.StringIO()
    terminal = Terminal(Console(file=words, width=width, force_terminal=True))
    terminal.start(Progress(), 1_234_567, "")
    for images in (100_000, 200_000, 300_000):
        values = {"speed/images_per_s": 1234.5, "lr/G": 2e-4, **LOSSES}
        terminal.scalars(Progress(step=images, images=images), values)
    terminal.close()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", words.getvalue())
    lines = [line for line in re.split(r"[\r\n]+", plain) if line.strip()]
    assert max(map(len, lines)) <= width
    last = lines[-1]
    assert "300000/1234567" in last and re.search(r"\d:\d\d|-:--|--:--", last), last
    assert "1.23e+03 images/s" in last, last
    assert ("G/idt_B" in last) == (width == 300), last
