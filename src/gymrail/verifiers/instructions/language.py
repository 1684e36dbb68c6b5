"""Which language a text is in, by the package `py3langid`: a maintained, deterministic, offline classifier."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from gymrail.errors import InputError, did_you_mean

_CODES = (
    "ar bg bn cs da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv ml mr ms nb ne nl no pa pl pt ro ru sk"
    " sl sq sv sw ta te th tl tr uk ur vi zh"
)
LANGUAGES = frozenset(_CODES.split(" "))
"""Languages that are told apart: those of IFEval and their neighbours."""


def language_of(text: str) -> str | None:
    """Return the ISO 639-1 code of a text's language; None where it has no letters.

    Raises:
        InputError: the package is not installed.
    """
    if not any(character.isalpha() for character in text):
        return None
    return _identifier().classify(text.lower())[0]


def language_code(name: str) -> str:
    """Return a code as `language_of` writes it: "zh-cn" is "zh".

    Raises:
        InputError: it is no language that is told apart.
    """
    code = name.casefold().partition("-")[0]
    if code not in LANGUAGES:
        raise InputError(f"The language is {name!r}. {did_you_mean(code, LANGUAGES, limit=60)}")
    return code


@functools.cache
def _identifier() -> Any:
    try:
        package = importlib.import_module("py3langid.langid")
    except ImportError:
        raise InputError(
            "Telling languages apart needs the package py3langid: pip install 'gymrail[instructions]'"
        ) from None
    identifier = package.LanguageIdentifier.from_model_file(package.MODEL_FILE)
    identifier.set_languages(sorted(LANGUAGES & set(identifier.nb_classes)))
    return identifier
