"""Inputs that were once found to break a decoder, beside the valid ones."""

from pathlib import Path

from tests.fuzz.drivers import DECODERS

CORPUS = Path(__file__).parent / "corpus"


def inputs_of(name: str) -> list[bytes]:
    """Return the valid inputs of a decoder, and what was found with it."""
    return [*DECODERS[name].seeds(), *(path.read_bytes() for path in sorted((CORPUS / name).glob("*")))]
