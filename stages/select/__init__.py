"""Decides for every pair whether it is kept, or the first reason why not; reports on all of it."""
