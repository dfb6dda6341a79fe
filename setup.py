import setuptools

TESTS = "kongming.tests"


class WithoutTests(setuptools.Distribution):
    """Leave the tests out of wheels: only a source tree can run them."""

    def finalize_options(self):
        super().finalize_options()
        self.packages = [each for each in self.packages or () if not each.startswith(TESTS)]
        # Without its package, a file would be data of the package above.
        self.exclude_package_data = {"kongming": ["tests/*"]}


setuptools.setup(setup_requires=["pbr>=6.0.0"], pbr=True, distclass=WithoutTests)
