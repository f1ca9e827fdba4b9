"""Where a release is on a host: versions, and fixed paths that sites already name.

versions.py     the folder of a certificate: versions, snippet, derived files, rollback
copies.py       fixed paths: all of them get the release, or none
fixed_path.py   a single one: what is there, what is to be there, and the way between
"""
