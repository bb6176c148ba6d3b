"""Sessions: their creation with all their seats, and the list of those on sale.

May be imported by the API and the expirer.
"""
