# Daily commands; `just --list` shows them.

# Serve the bundled demo model
serve *ARGS:
    cargo run --release -- serve {{ARGS}}

# All tests
test *ARGS:
    cargo test --workspace {{ARGS}}

# Format and lint, as the gate does
lint:
    cargo fmt --all
    cargo clippy --workspace --all-targets -- -D warnings
    scripts/check-absences.sh
    scripts/check-text.py
    scripts/check-structure.py
    scripts/check-messages.py

# The whole gate
ci:
    .ci/run

# The documents as a book, in target/book, and every link
book:
    scripts/check-book.sh

# Review changed snapshots
snapshots:
    cargo insta review

# Licences and advisories of the dependencies
deny:
    cargo deny check
