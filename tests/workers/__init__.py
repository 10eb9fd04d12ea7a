"""Tests of the processes that give ready answers."""
