"""The server: watches a spool and is the only party that moves jobs. Never unpickles anything."""
