"""The one configuration file.

model.py          its sections, as frozen types
types.py          what one value may be: each type beside its check
reading.py        from the TOML file to Config, with every mistake in one report
consistency.py    mistakes that only two values together make
"""
