"""Tests of rdolib."""
