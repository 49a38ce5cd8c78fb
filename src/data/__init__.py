"""What is asked: problems as the configuration names them, and the prompts around them.

May import `src.config`. `utils.data` reads rows and knows no configuration.

Read first: `problems.load_problems`.
"""
