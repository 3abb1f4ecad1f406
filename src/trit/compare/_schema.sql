-- A study in one file. Rows are only ever added: triggers of store.py refuse to change or delete
-- any. Times are seconds since 1970 (UTC). A choice or belief of '1' is the answer shown first.

CREATE TABLE study (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    trit_version TEXT NOT NULL,
    settings     TEXT NOT NULL,  -- JSON: seed, sampling, max_tokens, system, …
    made_at      REAL NOT NULL,
    secret       TEXT NOT NULL   -- what sides and orders are drawn from, with the voter's name
);
CREATE TABLE model (  -- by number from the heaviest file on
    id     INTEGER PRIMARY KEY,
    name   TEXT NOT NULL UNIQUE,
    path   TEXT NOT NULL,
    bytes  INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    type   TEXT NOT NULL,
    recipe TEXT
);
CREATE TABLE prompt (
    id   INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
);
CREATE TABLE own_prompt (  -- what voters asked while they voted
    prompt   INTEGER NOT NULL REFERENCES prompt,
    voter    TEXT NOT NULL,
    asked_at REAL NOT NULL,
    PRIMARY KEY (prompt, voter)
);
CREATE TABLE answer (
    model              INTEGER NOT NULL REFERENCES model,
    draw               INTEGER NOT NULL,  -- 1: a second answer, to be compared with the first
    prompt             INTEGER NOT NULL REFERENCES prompt,
    text               TEXT NOT NULL,
    tokens             INTEGER NOT NULL,
    finish_reason      TEXT NOT NULL,
    seed               INTEGER NOT NULL,
    prompt_tokens      INTEGER NOT NULL,
    prompt_seconds     REAL NOT NULL,
    generation_seconds REAL NOT NULL,
    isa                TEXT NOT NULL,
    threads            INTEGER NOT NULL,
    trit_version       TEXT NOT NULL,
    made_at            REAL NOT NULL,
    PRIMARY KEY (model, draw, prompt)
);
CREATE TABLE presentation (
    id           INTEGER PRIMARY KEY,
    token        TEXT NOT NULL UNIQUE,  -- all that a voter sees of it; good for one vote
    voter        TEXT NOT NULL,
    arm          TEXT NOT NULL CHECK (arm IN ('blind', 'named')),
    prompt       INTEGER NOT NULL REFERENCES prompt,
    first_model  INTEGER NOT NULL REFERENCES model,
    first_draw   INTEGER NOT NULL,
    second_model INTEGER NOT NULL REFERENCES model,
    second_draw  INTEGER NOT NULL,
    again        INTEGER REFERENCES presentation,  -- shown again after its vote was undone
    shown_at     REAL NOT NULL
);
CREATE TABLE vote (
    id           INTEGER PRIMARY KEY,
    presentation INTEGER NOT NULL UNIQUE REFERENCES presentation,
    -- 'same': the texts were, and nobody was asked
    choice       TEXT NOT NULL CHECK (choice IN ('1', '2', 'tie', 'bad', 'same')),
    seconds      REAL NOT NULL,  -- since it was shown
    voted_at     REAL NOT NULL
);
CREATE TABLE undo (
    vote      INTEGER PRIMARY KEY REFERENCES vote,
    undone_at REAL NOT NULL
);
CREATE TABLE belief (  -- which answer a voter took for the heavier file's
    presentation INTEGER PRIMARY KEY REFERENCES presentation,
    heavier      TEXT NOT NULL CHECK (heavier IN ('1', '2', 'unsure')),
    said_at      REAL NOT NULL
);
CREATE TABLE look (  -- when results were shown, and how many votes had been cast, undone ones too
    id        INTEGER PRIMARY KEY,
    votes     INTEGER NOT NULL,            -- on the study's prompts
    looked_at REAL NOT NULL,
    own       INTEGER NOT NULL DEFAULT 0   -- on prompts of voters' own
);
CREATE TABLE judge (
    id     INTEGER PRIMARY KEY,
    name   TEXT NOT NULL,
    path   TEXT NOT NULL,
    bytes  INTEGER NOT NULL,
    sha256 TEXT NOT NULL UNIQUE,
    type   TEXT NOT NULL
);
CREATE TABLE likelihood (
    judge  INTEGER NOT NULL REFERENCES judge,
    model  INTEGER NOT NULL REFERENCES model,
    prompt INTEGER NOT NULL REFERENCES prompt,
    nats   REAL NOT NULL,  -- ln p of the whole text
    tokens INTEGER NOT NULL,
    PRIMARY KEY (judge, model, prompt)
);
CREATE INDEX presentation_voter ON presentation (voter, arm);
