"""What training will read, for people: rows and documents with the words in them."""

from itertools import pairwise
from typing import Any

import numpy as np

from spirit.codec import Codec, Document, Segment
from spirit.data.documents import Documents, Source
from spirit.data.loader import Rows
from spirit.data.parts import Row
from spirit.interleave import cut
from spirit.units import Units


def row_facts(rows: Rows, number: int) -> dict[str, Any]:
    """Row `number` of a training, from 0: its documents, see `document_facts`.

    The rows before it are planned too: `rows` is as new, and then behind that row.
    """
    for _ in range(number + 1):
        row = rows.next_row()
    used = sum(len(ids) for _, ids in row)
    documents = []
    for piece, ids in row:
        facts = document_facts(rows.documents, *piece[:3])
        if len(ids) < facts["tokens"]:  # of which the row has a part
            facts |= {"start": piece.start, "stop": piece.stop}
            inside = rows.documents.codec.decode(ids)
            facts["segments"] = [
                _plain(segment, marker)
                for segment, marker in zip(
                    inside.segments, _markers(rows.documents.codec, inside), strict=True
                )
            ]
        documents.append(facts)
    return {
        "row": number,
        "step": number // rows.config.rows,
        "positions": rows.config.row,
        "used": used,
        "documents": documents,
    }


def document_facts(documents: Documents, source: Source, epoch: int, number: int) -> dict[str, Any]:
    """A document as JSON: `source`, `epoch`, `number`, `id`, `tokens`, and its `segments`.

    A segment has the `marker` before it, one of speech `units`, and where word times are known
    `words`, each with its units.
    """
    document = documents.document(source, epoch, number)
    known = documents.spans(source, epoch, number)
    spans = known or [(0, 0)] * len(document.segments)
    row = documents.recording(number)
    segments = []
    markers = _markers(documents.codec, document)
    for segment, span, marker in zip(document.segments, spans, markers, strict=True):
        facts = _plain(segment, marker)
        if isinstance(segment, Units) and document.task == "transcribe":
            facts["units"] = str(segment[documents.codec.words(segment)])
        if isinstance(segment, Units) and known and row is not None:
            read = documents.codec.words if document.task == "transcribe" else None
            facts["words"] = [
                {"word": word, "units": str(units if read is None else units[read(units)])}
                for word, units in _by_word(row, *span, segment)
            ]
        segments.append(facts)
    return {
        "source": source,
        "epoch": epoch,
        "number": number,
        "id": documents.id_of(number),
        "task": document.task,
        "tokens": len(documents.encode(source, epoch, number)),
        "segments": segments,
    }


def _markers(codec: Codec, document: Document) -> list[str]:
    """The name of the marker before each segment: of its modality, or before an answer its task's.

    A document that is read from its middle begins without one, but the segment is of a modality.
    """
    names = ["[Text]" if isinstance(segment, str) else "[Speech]" for segment in document.segments]
    answer = {"transcribe": "[Text]", "speak": "[Speech]"}.get(document.task or "")
    if document.task is not None and names[-1:] == [answer]:
        names[-1] = codec.vocab.token_name(codec.task_marker(document.task))
    return names


def _plain(segment: Segment, marker: str) -> dict[str, Any]:
    if isinstance(segment, str):
        return {"kind": "text", "marker": marker, "text": segment}
    return {"kind": "speech", "marker": marker, "units": str(segment)}


def _by_word(row: Row, first: int, last: int, speech: Units) -> list[tuple[str, Units]]:
    """The words `[first, last)` of a row, each with its share of the units of `speech`."""
    cuts = [cut(row.words, index, row.tracks) for index in range(first, last + 1)]
    for tracks in (row.tracks.clip(cuts[0], cuts[-1]), row.tracks):
        units, onsets = tracks.timed()
        if units == speech:
            break
    else:  # a slice
        onsets = onsets[(onsets >= cuts[0]) & (onsets < cuts[-1])]
    places = [0, *np.searchsorted(onsets, cuts[1:-1]).tolist(), len(speech)]
    words = [word.text for word in row.words[first:last]]
    return [(word, speech[a:b]) for word, (a, b) in zip(words, pairwise(places), strict=True)]
