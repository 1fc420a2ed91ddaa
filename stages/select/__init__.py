"""The select stage: keeps or drops every pair, with the first reason that applies, and writes the data report."""
