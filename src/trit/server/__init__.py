"""The server: OpenAI's HTTP interface over the runtime's scheduler (extra `serve`).

    app.py          the application: routes, and what is behind them for a request
    run.py          socket, time limits of connections, Ctrl-C
    settings.py     what may be asked of it, and how much
    _gate.py        who gets in: Host, Origin, key, size; what comes out: CORS, every error in shape
    _queue.py       slots, and how many may wait for one
    _shelf.py       the models: loaded when asked for, put away when idle
    _driver.py      the thread that runs the models' steps
    _requests.py    the bodies that are understood
    _prompts.py     from a body to what the runtime is asked
    _chat.py _completions.py _embeddings.py _texts.py _models.py _card.py   the endpoints
    _page.py        the web page at /, of the sources in page/

It generates nothing itself: that is the runtime's.
"""
