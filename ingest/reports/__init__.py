"""Radiology reports in French or English → labels: 1 present, 0 absent, -1 uncertain, nothing where nothing is said.

Takes the text of reports (a CSV, JSONL, or a folder of text files). Makes a table of labels that `ingest` readers take,
the words that gave each label, and a page that shows them. The rules are data (`fr.yaml`, `en.yaml`); edsnlp tokenizes,
normalizes, cuts sentences and finds the phrases. It learns nothing, and it reads chest X-ray reports only.
"""
