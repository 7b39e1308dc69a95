"""The command `dsage-spool`: one module for each family of verbs, imported when its verb is used."""
