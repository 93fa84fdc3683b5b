"""JSON schema of a study file.

``python .ci/schema.py`` writes it beside the built-in studies; a test holds the file equal to the code.
"""

from __future__ import annotations

import json

from bertft.study.schema import SCHEMA, study_schema

if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(study_schema(), indent=1) + "\n", encoding="utf8")
    print(SCHEMA)
