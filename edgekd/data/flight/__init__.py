"""Flights: a simulated fleet, and the loader of the NGAFID maintenance set."""
