"""The float operators of `mulshift.ir.float_functions`, where passes look for them."""

from __future__ import annotations

from mulshift.ir.float_functions import DOMAIN, STANDARD_SINCE, domain_of

__all__ = ["DOMAIN", "STANDARD_SINCE", "domain_of"]
