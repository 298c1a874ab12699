"""The fixture `spans`: what the code under test has traced."""
