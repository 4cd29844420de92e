"""What a result says of the processor that made it."""

import pytest

from mtl.sweep.provenance import _cpu

AMD = "processor\t: {}\ncpu family\t: 25\nmodel\t\t: {}\nmodel name\t: AMD EPYC\nflags\t\t: avx2\n\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (AMD.format(0, 1) + AMD.format(1, 1), "AMD EPYC (family 25, model 1)"),
        (AMD.format(0, 17) + AMD.format(1, 17), "AMD EPYC (family 25, model 17)"),
        ("processor\t: 0\nmodel name\t: A chip\n", "A chip"),
    ],
)
def test_processors_of_one_name_are_told_apart_by_their_generation(tmp_path, text, said):
    (tmp_path / "cpuinfo").write_text(text)
    assert _cpu(tmp_path / "cpuinfo") == said
