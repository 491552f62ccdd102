# SPDX-License-Identifier: GPL-3.0-or-later
"""The example server answers, and fast enough: by its processor time, since machines of tests are shared."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

import rate


def test_ten_thousand_round_trips_a_second() -> None:
    _, processor = rate.main(32, 2)
    assert processor >= 10000
