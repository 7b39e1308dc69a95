"""What people see on a terminal. The only importer of rich; nothing here touches a spool."""
