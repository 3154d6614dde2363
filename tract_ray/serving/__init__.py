"""A model behind a page and a JSON endpoint on this machine. Needs `pip install 'tract-ray[serve]'`."""
