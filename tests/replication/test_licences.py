"""The licences of dependencies: what is allowed, and that all that are pinned are."""

import pytest

from replication import licences


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("MIT", True),
        ("Apache-2.0 OR GPL-2.0-or-later", True),
        ("BSD-2-Clause AND Apache-2.0 WITH LLVM-exception", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("GNU General Public License v3 (GPLv3)", False),
        ("AGPL-3.0-only", False),
        ("MIT AND GPL-3.0-only", False),
        ("unknown", False),
        ("not installed", False),
    ],
)
def test_permissive_licences_are_allowed_alone(text, right):
    assert licences.allowed(text) is right


def test_all_pinned_packages_have_an_allowed_licence(capsys):
    assert licences.main([]) == 0, capsys.readouterr().err
    table = capsys.readouterr().out
    assert all(package in table for package in ("numpy", "torch", "dvc", *licences.EXCEPTIONS))


def test_a_package_that_is_not_allowed_fails_the_audit(monkeypatch, capsys):
    monkeypatch.setattr(licences, "EXCEPTIONS", {})
    assert licences.main([]) == 1
    assert "not allowed: pygit2" in capsys.readouterr().err
