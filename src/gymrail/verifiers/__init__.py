"""Reusable scoring. Each verifier lives in its own module, imported when it is used:

exact          ExactAnswer: boxed, `<answer>`, letter, label, regular expression
math           MathVerify: mathematical equality, in worker processes
judge          Judge: a language model that answers with a label; judge_prompt has its template
rubric         Rubric: a judge, criterion by criterion
combined       Combined: several verifiers with weights
reward         reward_function: any of them for a TRL trainer
multiple_choice    chosen, graded: an option by its letter, in several modes
answer         the pure functions below: finding answers and comparing them

docs/verifiers.md shows them all.
"""
