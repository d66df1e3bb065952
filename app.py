"""The app: `streamlit run app.py`, or `streamlit run app.py -- --results FOLDER` for results kept elsewhere."""

from hrvit_lab.app.main import run

run()
