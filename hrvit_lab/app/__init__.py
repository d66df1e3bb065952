"""The app: results of studies, and a builder of variants, in a browser."""
