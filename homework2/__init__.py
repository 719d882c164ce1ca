"""Homework 2: the master source, the oracles of its hidden tests, and its verification."""
