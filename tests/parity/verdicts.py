"""datatrove's verdicts on documents, each rule apart: every filter is built once for each of its rules, with the
others off. Reads JSON lines {"id", "text"}, writes JSON lines {rule: kept, or the error it ended with}.

    verdicts.py DOCUMENTS OUT
"""

import json
import logging
import sys
import warnings

from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.filters.c4_filters import C4ParagraphFilter

logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")  # numpy, of a mean over no words


def apart(make, off, on):
    """A filter for each rule: all settings off but its own."""
    return {rule: make(**{**off, **settings}) for rule, settings in on.items()}


def filters():
    quality = {
        "gopher_short": {"min_doc_words": 50},
        "gopher_long": {"max_doc_words": 100000},
        "gopher_words_too_short": {"min_avg_word_length": 3},
        "gopher_words_too_long": {"max_avg_word_length": 10},
        # One setting for both, of which datatrove names the first that is broken: told apart below.
        "gopher_hashes": {"max_symbol_word_ratio": 0.1},
        "gopher_ellipses": {"max_symbol_word_ratio": 0.1},
        "gopher_bullets": {"max_bullet_lines_ratio": 0.9},
        "gopher_ellipsis_lines": {"max_ellipsis_lines_ratio": 0.3},
        "gopher_alphabetic": {"max_non_alpha_words_ratio": 0.8},
        "gopher_stop_words": {"min_stop_words": 2},
    }
    off = {key: None for settings in quality.values() for key in settings}
    yield from apart(GopherQualityFilter, off, quality).items()

    repetition = {
        "gopher_dup_lines": {"dup_line_frac": 0.3},
        "gopher_dup_paragraphs": {"dup_para_frac": 0.3},
        "gopher_dup_line_chars": {"dup_line_char_frac": 0.2},
        "gopher_dup_paragraph_chars": {"dup_para_char_frac": 0.2},
    }
    off = {key: None for settings in repetition.values() for key in settings}
    off |= {"top_n_grams": (), "dup_n_grams": ()}
    for n, share in ((2, 0.2), (3, 0.18), (4, 0.16)):
        repetition[f"gopher_top{n}_grams"] = {"top_n_grams": ((n, share),)}
    for n, share in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)):
        repetition[f"gopher_dup{n}_grams"] = {"dup_n_grams": ((n, share),)}
    yield from apart(GopherRepetitionFilter, off, repetition).items()

    lines = {"filter_lorem_ipsum": False, "filter_curly_bracket": False, "min_num_sentences": -1}
    c4 = {
        "c4_sentences": {"min_num_sentences": 5},
        "c4_lorem_ipsum": {"filter_lorem_ipsum": True},
        "c4_curly_bracket": {"filter_curly_bracket": True},
    }
    yield from apart(C4QualityFilter, lines, c4).items()
    yield "c4_paragraphs", C4ParagraphFilter()

    off = {"line_punct_thr": -1, "short_line_thr": 9, "char_duplicates_ratio": 9, "new_line_ratio": 1e9}
    fineweb = {
        "fineweb_line_punctuation": {"line_punct_thr": 0.12},
        "fineweb_short_lines": {"short_line_thr": 0.67},
        "fineweb_dup_line_chars": {"char_duplicates_ratio": 0.01},
        "fineweb_newlines": {"new_line_ratio": 0.3},
    }
    yield from apart(FineWebQualityFilter, off, fineweb).items()


def verdict(rule, rules, text):
    try:
        found = rules[rule].filter(Document(text=text, id=""))
    except Exception as error:
        return type(error).__name__
    if isinstance(found, tuple):
        kept, reason = found
        if rule == "gopher_hashes":
            return kept or reason != "gopher_too_many_hashes"
        if rule == "gopher_ellipses" and reason == "gopher_too_many_hashes":
            # The other may be broken, too: without hash signs it shows.
            return verdict(rule, rules, text.replace("#", "H"))
        return kept
    return found


def main(documents, out):
    rules = dict(filters())
    clean = C4QualityFilter(filter_lorem_ipsum=False, filter_curly_bracket=False, min_num_sentences=-1)
    with open(documents) as lines, open(out, "w") as file:
        for line in lines:
            text = json.loads(line)["text"]
            found = {rule: verdict(rule, rules, text) for rule in rules}
            document = Document(text=text, id="")
            clean.filter(document)
            file.write(json.dumps({"verdicts": found, "c4_lines": document.text}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
