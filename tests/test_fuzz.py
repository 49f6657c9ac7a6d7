"""A few altered files for each reader; `python -m tests.faults --all readers` reads 120,000."""

import pytest

from tests import fuzz


@pytest.mark.parametrize("name", fuzz.READERS)
def test_an_altered_file_is_read_or_refused_in_words(name):
    slow = fuzz.READERS[name].share < 0.5 or "TensorFlow" in name
    ends = fuzz.read_one(name, 12 if slow else 60)
    assert ends["refused"] > 0


def test_the_fuzzer_notices_a_reader_that_fails(monkeypatch):
    def fails(data, folder):
        raise KeyError(data)

    monkeypatch.setitem(fuzz.READERS, "IDX", fuzz.Reader(fuzz.idx, fails, 1))
    with pytest.raises(KeyError):
        fuzz.read_one("IDX", 3)
