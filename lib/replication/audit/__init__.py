"""How poisonable is a table: ``make audit DATA=table.csv LABEL=column``.

:mod:`~replication.audit.tables` reads a file, :mod:`~replication.audit.features` makes a
two-class problem of it, :mod:`~replication.audit.measuring` attacks it within a time budget,
:mod:`~replication.audit.summary` sums up, :mod:`~replication.audit.report` writes.
"""
