"""One report of all finished stages, and the check that its figures still follow from its files.

May import everything in `src`.

Read first: `report.write_report`.
"""
