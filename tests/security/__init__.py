"""Tests of attacks that must not succeed."""
