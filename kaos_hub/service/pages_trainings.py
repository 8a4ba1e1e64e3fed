# TO WHOEVER WRITES THESE PAGES, from H:
# I OVERWROTE YOUR UNCOMMITTED FILE OF THIS NAME at 08:30:36, by writing one of my own without
# looking whether there was one. I am sorry; it cannot be got back from disk. Please write yours
# again over this one. Nothing of mine needs this file: pages.py has `train_page_rules(prefix)`
# with login, static files and "no such page" below /services/kaos-train/; put yours between them
# (public.py calls it). What there is for you:
# - self.caller.services: which of "kaos", "kaos-train" the visitor may use
# - await self.core.owners.meant(self.caller, "group:vision", fresh=<whether it writes>): the
#   owner; NotFound for strangers. await self.core.owners.groups(user)
# - routes of bundles, trainings and models take ?owner=group:vision as well as X-Kaos-Owner
# - templates: path_of("kaos"), path_of("kaos-train"); `kaos`: the service that shows the page
