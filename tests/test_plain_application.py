"""An application of the shape of Flask's tutorial, and the wheel that projects have."""

from __future__ import annotations

import re
import subprocess
import venv
from pathlib import Path

import requests
from conftest import PROJECT, ROOT, environment, free_ports
from processes import answers, running
from receiver import eventually, receiving

FACTORY = """
import os

from flask import Flask


def create_app(test_config=None):
    app = Flask(__name__, instance_relative_config=True)
    app.config.from_mapping(SECRET_KEY="dev", DATABASE=os.path.join(app.instance_path, "notes.sqlite"))
    os.makedirs(app.instance_path, exist_ok=True)

    @app.route("/hello")
    def hello():
        return "Hello, World!"

    from . import blog

    app.teardown_appcontext(blog.close_db)
    app.register_blueprint(blog.bp)
    app.add_url_rule("/", endpoint="index")
    return app
"""
BLOG = """
import sqlite3

from flask import Blueprint, abort, current_app, flash, g, redirect, render_template, request, url_for

bp = Blueprint("blog", __name__)


def get_db():
    if "db" not in g:
        g.db = sqlite3.connect(current_app.config["DATABASE"])
        g.db.execute("CREATE TABLE IF NOT EXISTS post (id INTEGER PRIMARY KEY, title TEXT NOT NULL)")
    return g.db


def close_db(e=None):
    if db := g.pop("db", None):
        db.close()


@bp.route("/")
def index():
    return render_template("index.html", posts=get_db().execute("SELECT id, title FROM post").fetchall())


@bp.route("/create", methods=("POST",))
def create():
    db = get_db()
    db.execute("INSERT INTO post (title) VALUES (?)", (request.form["title"],))
    db.commit()
    flash("Posted.")
    return redirect(url_for("blog.index"))


@bp.route("/<int:id>")
def show(id):
    post = get_db().execute("SELECT title FROM post WHERE id = ?", (id,)).fetchone()
    return post[0] if post else abort(404)
"""
TEMPLATE = (
    "{% for text in get_flashed_messages() %}{{ text }}{% endfor %}{% for post in posts %}<p>{{ post[1] }}{% endfor %}"
)


def test_the_readmes_lines_trace_the_flask_tutorials_application(tmp_path: Path) -> None:
    readme = (ROOT / "packages/traced-flask/README.md").read_text("utf-8")
    (lines,) = re.findall(r"```python\n(# Before OpenTelemetry.*?)```", readme, re.DOTALL)
    set_up, _, instrument = lines.partition("app = Flask(__name__)\n")
    made = "    os.makedirs"
    factory = set_up + FACTORY.replace(made, f"    {instrument.strip()}\n{made}")
    package = tmp_path / "flaskr"
    (package / "templates").mkdir(parents=True)
    for name, text in {"__init__": factory, "blog": BLOG}.items():
        (package / f"{name}.py").write_text(text)
    (package / "templates" / "index.html").write_text(TEMPLATE)

    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    (wheel,) = (ROOT / PROJECT / "wheels").glob("traced_flask-*.whl")
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True, env=environment())

    (port,) = free_ports(1)
    base = f"http://127.0.0.1:{port}"
    with receiving() as receiver:
        command = [python, "-m", "flask", "--app", "flaskr", "run", "--port", str(port)]
        env = {"OTEL_SERVICE_NAME": "blog", "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        with running(command, tmp_path, tmp_path / "log", **env) as server:
            assert eventually(lambda: answers(f"{base}/hello"), 60), server.output()
            session = requests.Session()
            assert "Posted.<p>a title" in session.post(f"{base}/create", data={"title": "a title"}, timeout=10).text
            assert session.get(f"{base}/1", timeout=10).text == "a title"
            missing = session.get(f"{base}/2", timeout=10)
            assert missing.status_code == 404
            trace_id = missing.headers["traceresponse"].split("-")[1]
            server.stop()
        assert "Traceback" not in server.output()
        (span,) = receiver.traces()[trace_id]
        assert (span["name"], span["service"], span["http.response.status_code"]) == ("GET /<int:id>", "blog", 404)
        names = {span["name"] for span in receiver.spans()}
        assert names == {"GET /hello", "POST /create", "GET /", "GET /<int:id>"}
