"""The report's run: with the masks of the posts that were asked about, or without and why."""

import pytest

from opengrok_jax import masked_file, report, storage
from tests.evaluation import finished

pytest.importorskip("spacy", reason="the annotator; extra 'mask'")


def test_another_annotator_costs_the_masks_and_not_the_page(tmp_path):
    """Masks of other words would be another mask: none is better, and the page says why."""
    arguments = finished.write(tmp_path)
    path = arguments["masked_file"] / storage.MANIFEST
    manifest = storage.read_json(path)
    manifest["provenance"] |= {
        "pipeline_name": "", "pipeline": "en_sns 0.0", "annotator": "of another time",
        "beta": 1.0, "gamma": 1.0, "delta": 1.0, "bias": 0.0, "scope": "prompt", "seed": 0,
        "pos_tags": ["NOUN"], "relations": ["root"],
    }  # fmt: skip
    storage.write_json(path, manifest)
    for stage in ("collect", "mask"):
        folder = tmp_path / {"collect": "teacher", "mask": "masking"}[stage]
        folder.mkdir(exist_ok=True)
        storage.write_manifest(folder, print_=f"print of {stage}", outputs=[], counts={})
    storage.append_line(tmp_path / "log.jsonl", {"stage": "mask", "ended": "now", "seconds": 61.0})
    of_room = ("question_masks", "unmasked", "stages")
    counts = report.run(**{k: v for k, v in arguments.items() if k not in of_room})
    assert counts["page"] == "report.html"
    page = (tmp_path / "report" / "report.html").read_text()
    assert "which is not what is installed now" in page
    assert "1 min 1 s" in page
    assert "print of collect" in page
    with pytest.raises(Exception, match="no such file"):
        masked_file.manifest(tmp_path / "report" / report.MASKS)
