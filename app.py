"""The app: `streamlit run app.py`, or `streamlit run app.py -- --results FOLDER` for results in another folder."""

from hrvit_lab.app.main import run

run()
