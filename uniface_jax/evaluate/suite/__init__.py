"""All sets of the papers' tables that lie in one folder, evaluated and put into one table."""
