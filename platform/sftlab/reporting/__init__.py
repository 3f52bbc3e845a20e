"""Parts of an HTML report: pages, sections, tables and figures."""
