"""What runs in the child process of an old model, by the Python of its time: a package without a part of Modelport.

These files keep to Python 3.7 and import the standard library and numpy only, and a model's library inside functions. The same files are
imported by Modelport itself, so that one code knows how a model is described and called; `__main__` is the child's.
"""
