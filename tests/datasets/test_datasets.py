"""Every table from either place; what is changed is refused; what is asked in vain is said."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest

from mixlaw import datasets
from mixlaw.datasets.catalogue import ENTRIES
from mixlaw.datasets.checksum import DECIMALS
from mixlaw.errors import RunTableError
from mixlaw.runs import RunTable
from mixlaw.runs.cells import UNITS

HOSTED = [name for name in datasets.names() if datasets.info(name).files]


def assert_same(found: RunTable, expected: RunTable) -> None:
    """To the bit, in the same order."""
    for field in fields(RunTable):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        np.testing.assert_array_equal(one, other, err_msg=field.name)


class TestDescriptions:
    @pytest.mark.parametrize("name", datasets.names())
    def test_each_is_whole(self, name):
        about = datasets.info(name)
        assert about.name == name
        assert re.fullmatch(r"[0-9a-f]{64}", about.checksum)
        for text in (about.title, about.licence, about.rows, about.unit, about.local):
            assert text
        for address in about.addresses:
            place = rf"https://raw.githubusercontent.com/{about.repository}/[0-9a-f]{{40}}/\S+"
            assert re.fullmatch(place, address)
        assert json.loads(json.dumps(about.to_dict()))["addresses"] == list(about.addresses)
        assert str(about).startswith(f"{name}: {about.title}\n")
        assert all(note in str(about) for note in about.oddities)

    def test_no_two_have_one_checksum(self):
        sums = [entry.info.checksum for entry in ENTRIES.values()]
        assert len(set(sums)) == len(sums)

    def test_an_unknown_name_has_its_nearest(self):
        with pytest.raises(RunTableError, match=r"no published table 'regmix/train_1m'; did you"):
            datasets.load("regmix/train_1m")
        with pytest.raises(RunTableError, match=r"did you mean 'mixinglaws/5mix'\? known are mix"):
            datasets.info("5Mix")
        with pytest.raises(RunTableError, match=r"'zzz'; known are mixinglaws/2mix, "):
            datasets.info("zzz")

    def test_nothing_is_downloaded_or_imported_before_it_is_asked_for(self):
        code = "import sys, mixlaw.datasets as d; d.info('regmix'); print(*sys.modules)"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        assert not {"pooch", "requests", "pyarrow"} & set(found.stdout.split())


class TestFromAFolder:
    @pytest.mark.parametrize("name", datasets.names())
    def test_loads_with_its_checksum(self, published, name):
        runs = published(name)
        assert {target.partition("/")[0] for target in runs.targets} <= set(UNITS)
        np.testing.assert_allclose(runs.weights.sum(axis=1), 1)
        assert len(set(rows_apart(runs))) == len(runs)
        # No weight is so near an edge of rounding that the last bit of a division, which is the
        # machine's affair, could change the checksum: here a bit is 1e-7.
        scaled = runs.weights * 10**DECIMALS
        assert np.abs(scaled - np.floor(scaled) - 0.5).min() > 1e-5

    def test_other_values_are_refused(self, tables, tmp_path, monkeypatch):
        """One loss, changed in its seventh digit."""
        import pyarrow
        from pyarrow import parquet

        rows = parquet.read_table(tables / "regmix_pile/runs.parquet").to_pylist()
        rows[3]["loss/arxiv"] += 1e-7
        (tmp_path / "regmix_pile").mkdir()
        path = tmp_path / "regmix_pile/runs.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        monkeypatch.setenv("MIXLAW_DATA", str(tmp_path))
        expected = datasets.info("regmix/train-1m").checksum
        with pytest.raises(RunTableError, match=rf"the checksum [0-9a-f]{{64}}, .* {expected};"):
            datasets.load("regmix/train-1m")
        assert len(datasets.load("regmix/test-1m")) == 256  # its rows are untouched
        rows[3].pop("weight/arxiv")
        parquet.write_table(pyarrow.Table.from_pylist(rows[3:4]), path)
        with pytest.raises(RunTableError, match=re.escape(f"{path}")):
            datasets.load("regmix/train-1m")

    def test_a_damaged_file_is_said(self, tmp_path, monkeypatch):
        pytest.importorskip("pyarrow")
        (tmp_path / "tiny_env_swarm").mkdir()
        path = tmp_path / "tiny_env_swarm/runs.parquet"
        path.write_bytes(b"PAR1 and no more")
        monkeypatch.setenv("MIXLAW_DATA", str(tmp_path))
        with pytest.raises(RunTableError, match=rf"tiny-env, read from {path}: not a whole Parq"):
            datasets.load("tiny-env")


def rows_apart(runs: RunTable):
    """What tells one row from another; where tokens are unknown the label does."""
    for run, tokens, label in zip(runs.run, runs.train_tokens, runs.label, strict=True):
        yield run, label if np.isnan(tokens) else tokens


class TestFromTheSource:
    @pytest.mark.parametrize("name", HOSTED)
    def test_is_the_table_of_the_folder(self, tables, server, monkeypatch, name):
        found = datasets.load(name)
        assert server.asked == [
            f"/{datasets.info(name).repository}/{file}" for file in datasets.info(name).files
        ]
        monkeypatch.setenv("MIXLAW_DATA", str(tables))
        assert_same(found, datasets.load(name))

    def test_is_asked_once(self, server):
        first = datasets.load("olmix/full-reuse")
        server.stop()
        assert_same(datasets.load("olmix/full-reuse"), first)

    def test_a_changed_file_is_refused_and_forgotten(self, server):
        about = datasets.info("mixinglaws/2mix")
        path = server.root / about.repository / about.files[0]
        text = path.read_text()
        path.unlink()  # it is a link to what other tests read
        path.write_text(text.replace("1.411091298709514", "1.411091398709514"))
        with pytest.raises(RunTableError, match=rf"yegcjs/mixinglaws: .* {about.checksum}; its"):
            datasets.load("mixinglaws/2mix")
        path.write_text(text)
        assert len(datasets.load("mixinglaws/2mix")) == 110

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("mixinglaws/ct", "<html>moved</html>\n"),
            ("mixinglaws/ct", "a/b-1/2\tc.d.bin\tnone\n"),
            ("dmsl-slimpajama", "model_size,n_tokens\nlarge,1\n"),
            ("dmsl-slimpajama", "model_size\n1,2,3\n"),
            ("regmix/test-1m", "index,a\n1,0.5\n"),
            ("olmix/dclm", ""),
        ],
    )
    def test_another_layout_is_refused(self, server, name, text):
        about = datasets.info(name)
        path = server.root / about.repository / about.files[0]
        path.unlink()
        path.write_text(text)
        with pytest.raises(RunTableError, match=f"^{name}, read from {about.repository}: .*again$"):
            datasets.load(name)
        assert not [path for path in server.cache.rglob("*") if path.is_file()]

    def test_rows_without_a_checksum_are_left_out(self, server):
        """The rebuilt file has runs of eight billion parameters."""
        about = datasets.info("dmsl-slimpajama")
        text = (server.root / about.repository / about.files[0]).read_text()
        assert "8000000000.0" in text
        assert datasets.load("dmsl-slimpajama").num_params.max() == 9.37e8


class TestTargetWeights:
    def test_they_are_shares_of_the_pile(self, published):
        for name in ("mixinglaws/5mix", "mixinglaws/redpajama", "mixinglaws/ct"):
            weights = datasets.target_weights(name)
            assert set(weights) == set(published(name).targets) - {"loss/starcoder_python"}
            assert sum(weights.values()) == pytest.approx(1)
        assert weights["loss/github"] == 0.09529320987654322

    def test_from_the_source(self, server):
        weights = datasets.target_weights("mixinglaws/5mix")
        assert weights["loss/pubmed_central"] == 0.125

    def test_others_have_none(self):
        with pytest.raises(RunTableError, match=r"mixinglaws/3mix has no weights .*/5mix, .* have"):
            datasets.target_weights("mixinglaws/3mix")
        with pytest.raises(RunTableError, match="no published table"):
            datasets.target_weights("pile")
